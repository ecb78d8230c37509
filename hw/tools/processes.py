"""Tools as processes, which end when the command that runs them is interrupted, and all their children."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
    tree = _held(lambda: _descendants(os.getpid()))
    _terminate(tree)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and any(process in tree for process in _descendants(os.getpid())):
        time.sleep(0.02)
    _send(tree, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its descendants."""
    if process.poll() is not None:
        return
    tree = _held(lambda: [process.pid, *_descendants(process.pid)])
    _terminate(tree)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _send(tree[1:], signal.SIGKILL)


def _held(find: Callable[[], list[int]]) -> list[int]:
    """Processes, stopped where they are: one that runs on could start another that nobody has found."""
    tree: list[int] = []
    until = time.monotonic() + GRACE
    while True:
        new = [process for process in find() if process not in tree]
        _send(new, signal.SIGSTOP)
        tree += new
        # What waits for a child that was stopped before it became a program (vfork) never stops itself.
        if time.monotonic() > until or not (new or any(_state(process) in "RSD" for process in tree)):
            return tree
        time.sleep(0.002)


def _terminate(tree: Sequence[int]) -> None:
    """Asks processes that are held to end."""
    _send(tree, signal.SIGTERM)
    _send(tree, signal.SIGCONT)


def _send(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _state(process: int) -> str:
    """A letter for what a process does, as in proc(5); X when it is gone."""
    try:
        return _status(Path(f"/proc/{process}/stat"))[0]
    except OSError:
        return "X"


def _status(stat: Path) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it, in parentheses, may hold anything."""
    return stat.read_bytes().rpartition(b")")[2].decode().split()


def _descendants(ancestor: int) -> list[int]:
    """Processes that a process started, and those that these did."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(_status(entry)[1])
    found = [ancestor]
    for at in found:
        found += [process for process, parent in parents.items() if parent == at]
    return found[1:]
