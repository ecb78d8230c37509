"""Files that appear whole or not at all, and the folder of what can be made again."""

import os
import tempfile
from pathlib import Path

from vrex.errors import UserError


def check_writable(path: Path) -> None:
    """Says before the work, not after it, that a result can't be written to ``path``.

    Raises:
        UserError: its folder is missing or read-only, or ``path`` is a folder.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: the folder {folder} does not exist; make it first")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is read-only; choose another")


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that it appears whole or not at all.

    Raises:
        UserError: the system refuses.
    """
    check_writable(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, delete=False) as file:
            temporary = file.name
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def cache_folder() -> Path:
    """Where built simulators and computed embeddings are kept: $VREX_CACHE, else the user's cache folder."""
    if "VREX_CACHE" in os.environ:
        return Path(os.environ["VREX_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrex"


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
