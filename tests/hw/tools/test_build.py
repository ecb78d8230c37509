"""The cache of built simulators; only one test here runs the tools."""

import sys
import threading
import time
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.hw.tools import build, verilator
from vrex.model.config import Config, preset

CONFIG = preset("tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VREX_CACHE", str(folder))
    monkeypatch.setattr(build, "_generate", lambda config, unit: "module vrex_kvpu; endmodule\n")
    return folder


def fake_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the tools; returns the Verilog of every build that follows."""
    built: list[str] = []

    def pretend(verilog: str, config: Config, unit: str, folder: Path) -> None:
        built.append(verilog)
        folder.mkdir()
        (folder / build.LIBRARY).touch()

    monkeypatch.setattr(build, "_build", pretend)
    return built


def test_a_second_use_builds_and_says_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = fake_build(monkeypatch)
    said: list[str] = []
    first = build.library(CONFIG, "kvpu", notify=said.append)
    monkeypatch.setattr(build, "_generate", None)
    assert build.library(CONFIG, "kvpu", notify=said.append) == first
    assert len(built) == 1
    assert len(said) == 1
    assert "preset tiny" in said[0]


def test_what_a_build_depends_on_is_in_its_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = fake_build(monkeypatch)
    names = {
        build.library(CONFIG, "kvpu"),
        build.library(CONFIG, "kvpu", lambda verilog: verilog + "// changed\n"),
    }
    names.add(build.library(preset("edge"), "kvpu"))
    monkeypatch.setattr(build, "OPTIMISE", "-O3")
    names.add(build.library(CONFIG, "kvpu"))
    monkeypatch.setattr(verilator, "compiler", lambda: "/bin/echo")
    names.add(build.library(CONFIG, "kvpu"))
    assert len(names) == len(built) == 5
    assert built[1].endswith("// changed\n")


def test_changed_sources_change_the_verilog(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = fake_build(monkeypatch)
    build.library(CONFIG, "kvpu")
    monkeypatch.setattr(build, "_generate", lambda config, unit: "module other; endmodule\n")
    build.library(CONFIG, "kvpu")
    assert len(built) == 1
    monkeypatch.setattr(build, "version", lambda package: "another")
    build.library(CONFIG, "kvpu")
    assert built[1] == "module other; endmodule\n"


def test_one_of_many_makes_it(cache: Path) -> None:
    made: list[int] = []

    def make() -> None:
        time.sleep(0.05)
        made.append(1)
        (cache / "thing").mkdir()

    threads = [threading.Thread(target=build._make_once, args=(cache / "thing", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_a_broken_off_build_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.library(CONFIG, "kvpu")
    assert all(path.suffix in (".lock", ".v") for path in cache.iterdir())


def test_what_a_killed_build_left_is_in_nobodys_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache / f"kvpu-{build._key(build._verilog(CONFIG, 'kvpu'), CONFIG, 'kvpu')}.building"
    left.mkdir(parents=True)
    (left / build.SOURCE).write_text("half")
    monkeypatch.setattr(build, "_compile", lambda model, flags, target, log: target.touch())
    library = build.library(CONFIG, "kvpu")
    assert library.is_file()
    assert not left.exists()
    assert (library.parent / build.SOURCE).read_text().startswith("module")


def test_a_missing_compiler_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"C\+\+ compiler g\+\+, which is missing; install it"):
        build.library(CONFIG, "kvpu")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set VREX_CACHE to a folder that can be written"):
        build.library(CONFIG, "kvpu")


def test_a_failing_tool_gives_one_sentence(cache: Path) -> None:
    with pytest.raises(UserError, match="building the simulator failed in verilator_bin") as raised:
        build.library(CONFIG, "kvpu", lambda _: "module vrex_kvpu; nonsense endmodule\n")
    assert "\n" not in str(raised.value)
    assert all(path.suffix in (".lock", ".v") for path in cache.iterdir())


def test_a_generator_that_fails_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"generating the Verilog of preset tiny failed \(code 1\)"):
        build._generate(CONFIG, "kvpu")
