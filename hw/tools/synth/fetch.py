"""Fetches a library of standard cells, which is not part of the project, when it is asked for."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vrex.errors import UserError
from vrex.files import keep_sum, kept


@dataclass(frozen=True)
class PackagedFile:
    """A Debian package with a Liberty file in it."""

    package: str
    path: str


SOURCES = {
    "osu018": PackagedFile("qflow-tech-osu018", "usr/share/qflow/tech/osu018/osu018_stdcells.lib"),
}


def fetched_before(name: str, cache: Path) -> Path | None:
    """The Liberty file of that name, if the cache holds it.

    Args:
        name: one of `SOURCES`.
        cache: folder that keeps it.
    """
    path = cache / "liberty" / f"{name}.lib"
    return None if kept(path) is None else path


def fetch(name: str, cache: Path) -> Path:
    """The Liberty file of that name, downloaded unless the cache holds it.

    Args:
        name: one of `SOURCES`.
        cache: folder that keeps it.

    Raises:
        UserError: no apt-get or dpkg-deb, no network, no such package, or the cache cannot be written.
    """
    source = SOURCES[name]
    if (found := fetched_before(name, cache)) is not None:
        return found
    path = cache / "liberty" / f"{name}.lib"
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(f"fetching {name} needs {tool}, which is missing; {_instead(source)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _download(source, Path(folder), name)
            os.replace(Path(folder) / "content" / source.path, path)
        keep_sum(path)
    except OSError as error:
        raise UserError(
            f"{name} can't be kept in {path.parent} ({error.strerror}); "
            "set VREX_CACHE to a folder that can be written"
        ) from error
    return path


def _download(source: PackagedFile, folder: Path, name: str) -> None:
    _run(["apt-get", "download", source.package], folder, name)
    packages = list(folder.glob("*.deb"))
    if len(packages) != 1:
        raise UserError(f"fetching {name} failed: apt-get brought no package; {_instead(source)}")
    _run(["dpkg-deb", "-x", packages[0].name, "content"], folder, name)
    if not (folder / "content" / source.path).is_file():
        raise UserError(f"fetching {name} failed: {source.package} does not hold it; {_instead(source)}")


def _run(command: list[str], folder: Path, name: str) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = lines[0].removeprefix("E:").strip() if lines else f"code {done.returncode}"
        raise UserError(
            f"fetching {name} failed: {command[0]}: {reason.rstrip('.')}; {_instead(SOURCES[name])}"
        )


def _instead(source: PackagedFile) -> str:
    return f"install {source.package} and name its file with --liberty"
