"""Files appear whole or not at all, and what is no file is written to as it is."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vrex import files
from vrex.errors import UserError
from vrex.files import place_of


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    files.write_file(path, b"one")
    files.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_read_by_those_the_umask_allows(tmp_path: Path) -> None:
    files.write_file(tmp_path / "out", b"")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o777])
def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "out"
    path.touch()
    path.chmod(mode)
    files.write_file(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def replace(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match="No space left on device"):
        files.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_a_mount_point_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old and longer")

    def replace(source: str, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", replace)
    files.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_gets_the_content(tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link, outer = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "outer"
    if there:
        target.write_bytes(b"old")
    link.symlink_to("folder/target")
    outer.symlink_to("link")
    files.write_file(outer, b"new")
    assert outer.is_symlink()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()


def test_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to(os.devnull)
    files.write_file(tmp_path / "null", b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left"):
        files.write_file(full, b"x")


def test_a_pipe_gives_its_reader_everything(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe", bytes(300_000)
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    files.write_file(pipe, content)
    reader.join()
    assert got == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_a_descriptor_is_written_behind_what_is_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"first ")
        named = Path(name.format(file.fileno()))
        if name == "link":
            named = tmp_path / "link"
            named.symlink_to(f"/dev/fd/{file.fileno()}")
        assert files.descriptor(named) == file.fileno()
        assert not files.is_plain(named)
        files.write_file(named, b"then")
        assert place_of(named) == place_of(path)
    assert path.read_bytes() == b"first then"
    with pytest.raises(UserError, match="it is not open"):
        files.check_writable(named)


def test_a_shells_process_substitution_gets_the_content() -> None:
    script = "import sys, pathlib; from vrex.files import *; write_file(pathlib.Path(sys.argv[1]), b'here')"
    command = f'"{sys.executable}" -c "{script}" >(cat) | cat'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("here", "")


def test_standard_output_is_its_stream(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print("before")
    files.write_file(files.STDOUT, b"figures\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    files.write_file(tmp_path / "link", b"again\n")
    print("after")
    assert capsys.readouterr().out == "before\nfigures\nagain\nafter\n"


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    reading = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("no/file")
    for path, says in (
        (tmp_path / "no" / "out", "does not exist"),
        (tmp_path, "it is a folder"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path(f"/dev/fd/{reading}"), "open for reading only"),
    ):
        with pytest.raises(UserError, match=says):
            files.check_writable(path)
    os.close(reading)


def test_places_are_compared_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d")
    file = tmp_path / "d" / "file"
    file.touch()
    os.link(file, tmp_path / "hard")
    (tmp_path / "soft").symlink_to("d/new")
    same = [
        (file, tmp_path / "link" / "file"),
        (file, tmp_path / "d" / "e" / ".." / "file"),
        (file, tmp_path / "hard"),
        (tmp_path / "d" / "new", tmp_path / "link" / "new"),
        (tmp_path / "d" / "new", tmp_path / "soft"),
        (tmp_path / "no" / "where", tmp_path / "link" / ".." / "no" / "where"),
    ]
    for one, other in same:
        assert place_of(one) == place_of(other), (one, other)
    different = [file, tmp_path / "d" / "new", tmp_path / "new", tmp_path / "no" / "new", tmp_path / "d"]
    assert len({place_of(path) for path in different}) == len(different)
    assert place_of(tmp_path / "d") in files.folders_above(tmp_path / "link" / "new")


def test_what_is_kept_is_given_back_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    assert files.kept(path) is None
    files.keep(path, b"content")
    assert files.kept(path) == b"content"
    for damaged in (b"", b"conten", b"contenu", b"\xff\xfe"):
        path.write_bytes(damaged)
        assert files.kept(path) is None
    path.write_bytes(b"content")
    files.sum_of(path).write_bytes(b"")
    assert files.kept(path) is None


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VREX_CACHE", "/somewhere")
    assert files.cache_folder() == Path("/somewhere")
    monkeypatch.setenv("VREX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_folder() == Path("/xdg/vrex")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert files.cache_folder() == Path("/home/someone/.cache/vrex")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VREX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(UserError, match="set VREX_CACHE"):
        files.cache_folder()
