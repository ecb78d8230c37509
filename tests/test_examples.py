"""Every example runs, prints what it did, and ends with 0."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS
from vrex.model import config_file
from vrex.sw.cli.main import main

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SIMULATORS = ROOT / "build" / "examples"
"""Where a built simulator stays from one run to the next."""


def run(name: str, *words: str | Path, cwd: Path) -> str:
    """Runs an example away from the checkout, as a user of the installed package does; returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_hcu_in_amaranth(tmp_path: Path) -> None:
    shown = run("hcu_in_amaranth.py", tmp_path / "detector.v", cwd=tmp_path)
    assert "frame 5: 8 of 8 tokens opened a cluster, new scene" in shown
    assert shown.endswith("every count equals the golden model's\n")
    assert "module scene_detector(" in (tmp_path / "detector.v").read_text()


def test_an_example_that_finds_a_difference_fails(tmp_path: Path) -> None:
    wrong = "import sys, hcu_in_amaranth as example; example.expected = list; sys.exit(example.main())"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    result = subprocess.run([sys.executable, "-c", wrong], cwd=tmp_path, env=environment, capture_output=True)
    assert result.returncode == 1


def test_dre_on_axi_ram(tmp_path: Path) -> None:
    shown = run("dre_on_axi_ram.py", "--output", SIMULATORS, cwd=tmp_path)
    assert "APPEND: 8 tokens, 3 clusters opened" in shown
    assert "every byte of the tables equal the golden model's" in shown


def test_video_session(tmp_path: Path) -> None:
    shown = run("video_session.py", "--backend", "rtl", cwd=tmp_path)
    votes = re.search(r"(\d+) votes on the voter, (\d+) compared", shown)
    assert votes
    assert int(votes[1]) == int(votes[2]) > 500


def test_custom_policy(tmp_path: Path) -> None:
    shown = run("custom_policy.py", cwd=tmp_path)
    assert "every-third: 5 of 5 answers right" in shown


@pytest.mark.slow
def test_huggingface(tmp_path: Path) -> None:
    assert "tokens fetched a chunk" in run("huggingface.py", cwd=tmp_path)


def test_the_core_for_a_ulx3s_is_one(tmp_path: Path) -> None:
    """The board refuses it for nothing that is known before Yosys; the golden core runs it."""
    config = config_file.read(EXAMPLES / "ulx3s-core.toml")
    designs.check(BOARDS["ulx3s"], "core", config)
    words = ["--frames", "3", "--offload", "chip", "--config", str(EXAMPLES / "ulx3s-core.toml")]
    out = ["--json", str(tmp_path / "run.json"), "--png", str(tmp_path / "run.png")]
    assert main(["run", "--video", "procstream:1", *words, *out]) == 0


def test_every_example_is_run_here() -> None:
    mentioned = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in mentioned] == []
