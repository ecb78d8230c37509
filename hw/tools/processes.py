"""Tools as processes, which end when the command that runs them is interrupted, and all their children."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE = 1.0
"""Seconds that a tool gets to remove its temporary files before it is killed."""


class Tools:
    """Runs tools, from several threads if need be, until `stop`.

    They stay in the terminal's process group, so that its signals reach them too; but a signal that only this
    process gets would leave a compiler behind, and its driver's children after that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(
        self,
        command: Sequence[str],
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
        merge: bool = False,
        folder: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a tool to its end.

        Args:
            command: its words.
            given: its standard input.
            environment: of the process, None for this one's.
            merge: let its stderr go to stdout.
            folder: that it runs in, None for this process's.

        Raises:
            OSError: it can't be started.
            InterruptedError: `stop` was called before.
        """
        error = subprocess.STDOUT if merge else subprocess.PIPE
        with self._lock:
            if self._stopped:
                raise InterruptedError("no tool is started any more")
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=error,
                env=environment,
                cwd=folder,
            )
            self._running.add(process)
        try:
            out, err = process.communicate(given)
        except BaseException:
            _end(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def stop(self) -> None:
        """Ends all tools that run, and lets no other start."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _end(process)


def end_descendants() -> None:
    """Ends all processes that this one started, and those that these did."""
    tree = _descendants(os.getpid())
    _send(tree, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and any(process in tree for process in _descendants(os.getpid())):
        time.sleep(0.02)
    _send(tree, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its descendants."""
    if process.poll() is not None:
        return
    tree = [process.pid, *_descendants(process.pid)]
    _send(tree, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _send(tree[1:], signal.SIGKILL)


def _send(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _descendants(ancestor: int) -> list[int]:
    """Processes that a process started, and those that these did."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The name before it, in parentheses, may hold spaces and parentheses.
            parents[int(entry.parent.name)] = int(entry.read_bytes().rpartition(b")")[2].split()[1])
    found = [ancestor]
    for at in found:
        found += [process for process, parent in parents.items() if parent == at]
    return found[1:]
