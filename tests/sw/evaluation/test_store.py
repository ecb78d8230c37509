"""The file of finished cells."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.evaluation import store as module
from vrex.sw.evaluation.store import open_store, store_path

KEY: dict[str, Any] = {
    "policy": "full",
    "settings": {},
    "suite": "tasks",
    "frames": 8,
    "seed": 1,
    "level": "easy",
}


def key(seed: int) -> dict[str, Any]:
    return {**KEY, "seed": seed}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two cells."""
    path = store_path(tmp_path / "out.json")
    with open_store(path, "model") as store:
        for seed in (1, 2):
            store.add(key(seed), {**key(seed), "items": [seed]})
    return path


def test_what_was_added_is_there_next_time(path: Path) -> None:
    with open_store(path, "model") as store:
        assert key(1) in store
        assert store[key(2)]["items"] == [2]
        assert key(3) not in store
        assert {**key(1), "settings": {"th_r": 0.3}} not in store


def test_a_line_cut_off_by_a_kill_is_done_again(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with open_store(path, "model") as store:
        assert key(1) in store
        assert key(2) not in store
        store.add(key(2), {**key(2), "items": [2]})
    assert path.read_bytes() == content


def test_an_interrupt_behind_the_write_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = module._append

    def interrupted(path: Path, file: Any, line: dict[str, Any]) -> None:
        append(path, file, line)
        raise KeyboardInterrupt

    path = tmp_path / "a.jsonl"
    with open_store(path, "model") as store:
        monkeypatch.setattr(module, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add(key(1), key(1))
        monkeypatch.undo()
        assert key(1) not in store
        store.read()
        assert key(1) in store


def test_a_first_cell_whose_write_was_interrupted_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open_store(path, "model") as store:
        module._append(path, store._file, key(1))
    with open_store(path, "model") as store:
        assert key(1) in store


def test_a_header_cut_off_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"form')
    with open_store(path, "model") as store:
        store.add(key(1), key(1))
    assert json.loads(path.read_text().splitlines()[0])["model"] == "model"


def test_without_a_cell_nothing_is_left(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.jsonl", "model"):
        pass
    with pytest.raises(UserError), open_store(tmp_path / "a.jsonl", "model"):
        raise UserError("the model is broken")
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "9.9")
    with pytest.raises(UserError, match=r"was written by vrex 0\.\S+ \(format 3\), this is 9\.9"):
        open_store(path, "model").__enter__()


def test_changed_code_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = module.source_digest(module.SOURCES)
    monkeypatch.setattr(module, "SOURCES", module.SOURCES[1:])
    assert module.source_digest(module.SOURCES) != before
    with pytest.raises(UserError, match="before the source code of vrex was changed"):
        open_store(path, "model").__enter__()


def test_another_model_is_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match="another model"):
        open_store(path, "other").__enter__()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"film\n", "line 1: is not JSON"),
        (b"[" * 100_000 + b"\n", "line 1: is not JSON"),
        (b"[1]\n", "line 1: is no cell"),
        (b'{"a": 1}\n', "holds no cells"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        open_store(path, "model").__enter__()
    assert path.read_bytes() == content


@pytest.mark.parametrize(("line", "says"), [(b"{\n", "line 4: is not JSON"), (b"{}\n", "policy is missing")])
def test_damaged_lines_are_named(path: Path, line: bytes, says: str) -> None:
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(UserError, match=says):
        open_store(path, "model").__enter__()


def test_two_runs_cannot_share_it(path: Path) -> None:
    with open_store(path, "model"), pytest.raises(UserError, match="in use by another run"):
        open_store(path, "model").__enter__()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        open_store(tmp_path / "missing" / "a.jsonl", "model").__enter__()
