"""The cache of built simulators; few tests here run the tools."""

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.files import keep, sum_of
from vrex.hw.tools import build, verilator
from vrex.model.config import Config, preset

CONFIG = preset("tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # No tool may take the name for anything else.
    folder = tmp_path / """cache's "$HOME" #"""
    monkeypatch.setenv("VREX_CACHE", str(folder))
    monkeypatch.setattr(build, "_generate", lambda config, unit: "module vrex_kvpu; endmodule\n")
    return folder


def fake_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the tools; returns the Verilog of every build that follows."""
    built: list[str] = []

    def pretend(verilog: str, config: Config, unit: str, folder: Path, alone: bool) -> None:
        built.append(verilog)
        folder.mkdir()
        keep(folder / build.LIBRARY, b"library")

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

    def make(alone: bool) -> None:
        assert alone
        time.sleep(0.05)
        made.append(1)
        keep(thing, b"content")

    thing = cache / "thing"
    threads = [threading.Thread(target=build._make_once, args=(thing, thing, make)) for _ in range(8)]
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
    assert all(path.suffix in (".lock", ".v", ".sum") for path in cache.iterdir())


def test_what_a_killed_build_left_is_in_nobodys_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = cache / f"kvpu-{build._key(build._verilog(CONFIG, 'kvpu'), CONFIG, 'kvpu')}.building"
    left.mkdir(parents=True)
    (left / build.SOURCE).write_text("half")
    monkeypatch.setattr(build, "_compile", lambda model, harness, flags, objects, target, log: target.touch())
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
    assert all(path.suffix in (".lock", ".v", ".sum") for path in cache.iterdir())


def test_a_generator_that_fails_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"generating the Verilog of preset tiny failed \(code 1\)"):
        build._generate(CONFIG, "kvpu")


# -- a cache that was damaged, or is on a file system that lacks something ----------------------------------

DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "another byte": lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]),
    "missing": lambda path: path.unlink(),
    "no sum": lambda path: sum_of(path).unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_built_once_more(
    damage: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fake_build(monkeypatch)
    library = build.library(CONFIG, "kvpu")
    DAMAGES[damage](library)
    assert build.library(CONFIG, "kvpu") == library
    assert library.read_bytes() == b"library"
    build.library(CONFIG, "kvpu")
    assert len(built) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_verilog_is_generated_once_more(
    damage: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fake_build(monkeypatch)
    build.library(CONFIG, "kvpu")
    (verilog,) = cache.glob("*.v")
    DAMAGES[damage](verilog)
    shutil.rmtree(next(path for path in cache.iterdir() if path.is_dir() and path != verilog))
    build.library(CONFIG, "kvpu")
    assert built[0] == built[1] == verilog.read_text()


def test_a_file_in_the_place_of_a_build_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_build(monkeypatch)
    library = build.library(CONFIG, "kvpu")
    shutil.rmtree(library.parent)
    library.parent.write_text("")
    assert build.library(CONFIG, "kvpu").is_file()


def test_a_disk_that_loses_what_is_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(verilog: str, config: Config, unit: str, folder: Path, alone: bool) -> None:
        folder.mkdir()

    monkeypatch.setattr(build, "_build", lose)
    with pytest.raises(UserError, match="damaged again right after it was made") as raised:
        build.library(CONFIG, "kvpu")
    assert str(cache) in str(raised.value)


def test_a_file_system_without_locks_will_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(
        build, "_compile", lambda model, harness, flags, objects, target, log: target.write_bytes(b"library")
    )
    library = build.library(CONFIG, "kvpu")
    assert library.read_bytes() == b"library"
    assert not list(cache.glob("*.building*"))


def test_where_no_program_runs_nothing_is_built(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = fake_build(monkeypatch)

    class Mount:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda path: Mount())
    with pytest.raises(UserError, match="mounted noexec; set VREX_CACHE") as raised:
        build.library(CONFIG, "kvpu")
    assert str(cache) in str(raised.value)
    assert built == []


def test_a_library_that_the_system_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"no ELF, but long enough to be looked at as if it were one")
    with pytest.raises(UserError, match="can't be loaded from ") as raised:
        verilator.load(tmp_path / "lib.so")
    assert str(tmp_path) in str(raised.value)


def test_a_full_disk_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(*_: object) -> None:
        raise UserError("building the simulator failed in g++")

    monkeypatch.setattr(build, "_compile", compile_nothing)
    monkeypatch.setattr(build, "ROOM", 1 << 62)
    with pytest.raises(UserError, match="its disk is full; make room") as raised:
        build.library(CONFIG, "kvpu")
    assert str(cache) in str(raised.value)


INTERRUPTED = """
import signal
import sys
from pathlib import Path
# A process in a shell's background ignores the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
from vrex.hw.tools import build, verilator
verilator.verilate = lambda *_: None
verilator.compiler = lambda: sys.argv[1]
verilator.includes = lambda *_: []
try:
    build._compile(Path(sys.argv[2]), build.HARNESS, [], [], Path("lib.so"), Path(sys.argv[2], "log"))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interruption_ends_the_compiler_and_its_children_at_once(tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    # A driver as g++ is, but with ever more children, each of which would go on for a minute.
    more = "while :; do sleep 61.25 & sleep 0.01; done"
    compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\n{more}\n")
    compiler.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(compiler), str(tmp_path)], stderr=subprocess.PIPE
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - sent < 10
    left = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if _runs(path, b"61.25")]
    assert left == []


def _runs(path: Path, word: bytes) -> bool:
    try:
        return word in path.read_bytes().split(b"\0")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("unit", "parts"), [(1 << 10, ["small middle large"]), (1 << 17, ["large", "small middle"])]
)
def test_long_code_is_compiled_in_two_parts(unit: int, parts: list[str], tmp_path: Path) -> None:
    sizes = {"large": 9 * unit, "middle": 5 * unit, "small": 3 * unit, "top__Slow": unit}
    for name, size in sizes.items():
        (tmp_path / f"{name}.cpp").write_bytes(bytes(size))
    hot, cold = verilator.joined(tmp_path, tmp_path / "driver.cc")
    wanted = [[f"{name}.cpp" for name in part.split()] for part in parts]
    wanted[0].append("driver.cc")
    assert [re.findall(r'"(.*)"', path.read_text()) for path in hot] == wanted
    assert cold.read_text() == '#include "top__Slow.cpp"\n'
