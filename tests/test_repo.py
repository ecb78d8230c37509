"""The repository itself: packaging, and what a bare machine is told."""

import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
FOLDERS = ("hw", "model", "tb", "sw")


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_constraints_pin_every_dependency() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pins = {_normal(name): version for name, version in pins.items()}
    project = _pyproject()["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        if requirement.startswith("vrex["):
            continue
        name, specifier = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(.*)", requirement).groups()  # type: ignore[union-attr]
        assert _normal(name) in pins, requirement
        assert SpecifierSet(specifier).contains(pins[_normal(name)]), requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_sources_hold_no_machine_paths() -> None:
    own = re.compile(r"/(work|home|root|Users)/\w")
    for folder in (*FOLDERS, "scripts", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".sh", ".md", ".cpp", ".json", ".toml"}:
                assert not own.search(path.read_text()), path


# -- scripts/check_tools.sh on machines that lack something ---------------------------------------------


def _check_tools(folder: Path, python: str = "python3") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ROOT / "scripts" / "check_tools.sh", python],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH folder of a machine that has everything."""
    for tool in ("g++", "make"):
        _script(tmp_path / tool, "exit 0")
    (tmp_path / "head").symlink_to("/usr/bin/head")
    _script(tmp_path / "python3", f'exec "{sys.executable}" "$@"')
    return tmp_path


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_machine_with_everything_is_told_nothing(machine: Path) -> None:
    result = _check_tools(machine)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_a_missing_tool_is_named(machine: Path, tool: str) -> None:
    (machine / tool).unlink()
    _fails_with_one_sentence(_check_tools(machine), f"{tool} is missing: install ")


def test_a_missing_python_is_named(machine: Path) -> None:
    (machine / "python3").unlink()
    _fails_with_one_sentence(_check_tools(machine), "python3 is missing: install Python 3.11 or newer")


def test_an_old_python_is_named(machine: Path) -> None:
    _script(machine / "python3", 'test "$1" = --version && echo "Python 3.9.2" && exit 0\nexit 1')
    _fails_with_one_sentence(_check_tools(machine), "Python 3.9.2 (python3) is too old: install Python 3.11")


def test_a_python_without_venv_is_named(machine: Path) -> None:
    _script(machine / "python3", 'case "$2" in *venv*) exit 1;; esac\nexit 0')
    _fails_with_one_sentence(_check_tools(machine), "python3 lacks the venv module: install it")


def _fails_with_one_sentence(result: subprocess.CompletedProcess[str], start: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"vrex: {start}")
    assert result.stderr.count("\n") == 1
