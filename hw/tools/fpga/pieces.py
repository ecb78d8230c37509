"""Parts of a build that later ones reuse: each is kept under a digest of all that it depends on."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import keep, kept


@dataclass(frozen=True)
class Piece:
    """A part of a build.

    Attributes:
        value: what was made.
        digest: of what it depends on.
        seconds: that making it took, in whichever build it was.
        reused: it was there already.
    """

    value: Any
    digest: str
    seconds: float
    reused: bool


class Pieces:
    """The parts that a folder keeps.

    Args:
        folder: of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: str, depends: Sequence[str]) -> Path:
        """Where a part is or would be."""
        return self.folder / f"fpga-{digest(step, depends)}.z"

    def make(self, step: str, depends: Sequence[str], make: Callable[[], Any]) -> Piece:
        """A part: the kept one if it is whole, else it is made and kept.

        Args:
            step: that makes it.
            depends: all that it depends on.
            make: gives what JSON can hold.

        Raises:
            UserError: the cache can't be written.
        """
        path = self.path(step, depends)
        name = digest(step, depends)
        content = kept(path)
        if content is not None:
            found = json.loads(zlib.decompress(content))
            return Piece(found["value"], name, found["seconds"], True)
        start = time.monotonic()
        value = make()
        seconds = round(time.monotonic() - start, 1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the build can't be kept in {self.folder} ({error.strerror}); "
                "set VREX_CACHE to a folder that can be written"
            ) from error
        keep(path, zlib.compress(json.dumps({"value": value, "seconds": seconds}).encode(), 1))
        return Piece(value, name, seconds, False)


def digest(step: str, depends: Sequence[str]) -> str:
    """The name of a part: 20 hex digits."""
    return hashlib.sha256("\0".join([step, *depends]).encode()).hexdigest()[:20]
