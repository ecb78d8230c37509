"""ProcStream videos as files."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.videollm.procstream import files, make, read_sidecar, sidecar_path, write_mp4
from vrex.sw.videollm.video import open_video

VIDEO = make(1, 40)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("procstream") / "one.mp4"
    write_mp4(VIDEO, path)
    return path


def test_pictures_survive_the_file(mp4: Path) -> None:
    reader = open_video(mp4, VIDEO.fps, 64)
    assert reader.frame_count == 40
    error = np.stack(list(reader)).astype(float) - VIDEO.frames
    assert np.sqrt((error**2).mean()) < 3
    assert np.abs(error).max() < 40
    assert np.abs(error.mean((0, 1, 2))).max() < 0.5, "no colour may shift"


@pytest.mark.parametrize("fps", [2.0, 1 / 3, 29.97, 24000 / 1001, 240.0, 0.01])
def test_every_frame_is_read_back_at_the_sidecars_rate(tmp_path: Path, fps: float) -> None:
    video = make(4, 15, fps)
    write_mp4(video, tmp_path / "v.mp4")
    reader = open_video(tmp_path / "v.mp4", read_sidecar(tmp_path / "v.json").fps, 64)
    assert reader.frame_count == 15
    for picture, original in zip(reader, video.frames, strict=True):
        assert np.abs(picture.astype(float) - original).mean() < 3


def test_it_is_h264_that_players_open(mp4: Path) -> None:
    with av.open(str(mp4)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 256, 256)
    data = mp4.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a stream can start before the whole file is there"


def test_the_sidecar_holds_what_the_video_holds(mp4: Path) -> None:
    sidecar = read_sidecar(sidecar_path(mp4))
    assert (sidecar.seed, sidecar.frames, sidecar.fps) == (1, 40, 2.0)
    assert sidecar.questions == VIDEO.questions
    assert sidecar.narration == VIDEO.narration
    assert len(sidecar.questions) > 0
    assert len(sidecar.narration) > 0


def test_same_video_same_bytes_and_nothing_else_left(mp4: Path, tmp_path: Path) -> None:
    write_mp4(make(1, 40), tmp_path / "two.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.json", "two.mp4"]
    assert (tmp_path / "two.mp4").read_bytes() == mp4.read_bytes()
    assert (tmp_path / "two.json").read_bytes() == sidecar_path(mp4).read_bytes()


def test_an_existing_pair_is_replaced(tmp_path: Path) -> None:
    write_mp4(make(1, 8), tmp_path / "v.mp4")
    write_mp4(make(2, 9), tmp_path / "v.mp4")
    assert read_sidecar(tmp_path / "v.json").seed == 2
    assert open_video(tmp_path / "v.mp4", 2, 64).frame_count == 9


def test_a_failed_encoder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENCODER", {"preset": "no such preset"})
    with pytest.raises(UserError, match="cannot be written"):
        write_mp4(make(0, 3), tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_blocked_sidecar_leaves_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.json").mkdir()
    with pytest.raises(UserError, match=r"v\.json: it is a folder"):
        write_mp4(make(0, 3), tmp_path / "v.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]


@pytest.mark.parametrize(
    ("name", "fps", "words"),
    [
        ("v.avi", 2.0, "must end in .mp4"),
        ("missing/v.mp4", 2.0, "No such file or directory"),
        ("v.mp4", 0.001, "choose 0.01 to 240"),
        ("v.mp4", 1e9, "choose 0.01 to 240"),
    ],
)
def test_impossible_files_are_named(tmp_path: Path, name: str, fps: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_mp4(make(0, 3, fps), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def change(content: dict[str, Any], keys: tuple[Any, ...], value: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    if value is ...:
        del content[keys[-1]]
    else:
        content[keys[-1]] = value


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("format",), ..., "format is missing"),
        (("format",), "another", "its format is not"),
        (("seed",), -1, "out of range"),
        (("seed",), 1.5, "seed has the wrong type"),
        (("level",), "hardest", "no level 'hardest'"),
        (("level",), 1, "level has the wrong type"),
        (("frames",), 0, "out of range"),
        (("frames",), 10**400, "out of range"),
        (("frames",), True, "frames has the wrong type"),
        (("frames",), 3, "times are not ascending within"),
        (("fps",), 0, "out of range"),
        (("fps",), "2", "fps has the wrong type"),
        (("fps",), float("nan"), "fps is out of range"),
        (("questions",), ..., "questions is missing"),
        (("questions",), {}, "questions has the wrong type"),
        (("questions", 0), "now", "kind is missing"),
        (("questions", 0, "kind"), "why", "no kind of question 'why'"),
        (("questions", 0, "text"), " ", "text is empty"),
        (("questions", 0, "answer"), ..., "answer is missing"),
        (("questions", 0, "time"), -1, "times are not ascending within"),
        (("questions", 0, "time"), 19.9, "times are not ascending within"),
        (("questions", 0, "time"), 10**400, "time is out of range"),
        (("narration", 0, "time"), None, "time has the wrong type"),
        (("narration", 0, "text"), 3, "text has the wrong type"),
    ],
)
def test_a_malformed_sidecar_is_named(
    mp4: Path, tmp_path: Path, keys: tuple[Any, ...], value: Any, words: str
) -> None:
    content = json.loads(sidecar_path(mp4).read_text())
    change(content, keys, value)
    path = tmp_path / "v.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        read_sidecar(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_sidecar_that_is_no_json_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.json").write_bytes(data)
    with pytest.raises(UserError, match="is not JSON"):
        read_sidecar(tmp_path / "v.json")


@pytest.mark.parametrize("content", [[], 3, None, "text"])
def test_a_sidecar_that_is_no_object_is_named(tmp_path: Path, content: Any) -> None:
    (tmp_path / "v.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="format is missing"):
        read_sidecar(tmp_path / "v.json")


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_sidecar(tmp_path / "v.json")
