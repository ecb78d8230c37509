"""Standard streams that cannot end a command: closed, full, left by their reader, or of a narrow encoding."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from vrex.text import ESCAPE, escape_on


class _Lasting(io.FileIO):
    """A stream's file that takes everything; what the system refuses, and all that follows, is dropped.

    A table that nobody reads, or that a full disk refuses, must not cost the figures of a run.

    Attributes:
        failure: what the system said first, None if nothing.
    """

    failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Writes, or drops what can't be written."""
        try:
            return super().write(content) or 0
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = self.failure or error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return memoryview(content).nbytes


@contextmanager
def lasting() -> Iterator[None]:
    """Gives the standard streams such files; those that the caller has put there only get escapes."""
    _open_closed()
    former = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = former


def _lasting(stream: TextIO, number: int) -> TextIO:
    """The same stream on a `_Lasting` file, if it is the interpreter's own."""
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        escape_on(stream)
        return stream
    if stream.fileno() != number:
        return stream
    with suppress(OSError):
        stream.flush()
    file = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    by_line = number == 2 or stream.line_buffering or stream.write_through
    return io.TextIOWrapper(file, encoding=stream.encoding, errors=ESCAPE, line_buffering=by_line)


def failure() -> OSError | None:
    """Why stdout did not take all that was written, None if it did."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lasting) else None


def _open_closed() -> None:
    """Puts the null device in the place of standard streams that are closed.

    Otherwise the first file that is opened would get a stream's number, and what is printed. It is open for
    reading only, so that writing results there fails.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one, as those below it are open by now.
            os.open(os.devnull, os.O_RDONLY)
        if number and getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(null, "w", encoding="utf-8"))
