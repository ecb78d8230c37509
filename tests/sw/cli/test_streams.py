"""Standard streams that are closed, full or left cost no figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
import vrex.sw.cli.main as c
def execute(args):
    for _ in range(3):
        print("x" * 100_000)
    c.CommandFiles.write_json(args.files, args.json, {"it": 1}, 1)
    print("caf\\udce9 \\u6620")
    return 0
c.bench.execute = execute
sys.exit(c.main(["bench", "dre", "--json", sys.argv[1]]))
"""


def _run(redirect: str, name: str = "out.json") -> subprocess.CompletedProcess[str]:
    """Runs a command that prints much and then writes figures, in a shell that redirects it."""
    command = f'"{sys.executable}" -c "$1" {name} {redirect}'
    return subprocess.run(["bash", "-c", command, "bash", SCRIPT], capture_output=True, text=True)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("redirect", "code", "says"),
    [
        (">&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0, ""),
        (">/dev/full", 2, "vrex: error: cannot write standard output: No space left on device\n"),
    ],
)
def test_figures_are_written_whatever_becomes_of_stdout(redirect: str, code: int, says: str) -> None:
    done = _run(redirect)
    assert (done.returncode, done.stderr) == (code, says)
    assert json.loads(Path("out.json").read_text()) == {"it": 1}


def test_figures_that_stdout_does_not_take_are_an_error() -> None:
    for redirect in (">&-", ">/dev/full"):
        done = _run(redirect, "-")
        assert done.returncode == 2
        assert done.stderr.startswith("vrex: error: cannot write ")
        assert done.stderr.count("\n") == 1


def test_what_the_terminal_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = _run("")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("caf\\xe9 \\u6620\n")
