"""`vrex.open_session`: the command line's runs from Python, and what only Python can do."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vrex
from vrex.errors import UserError
from vrex.model.config import MeanConfig, preset
from vrex.model.config_file import to_toml
from vrex.sw.cli import main as cli
from vrex.sw.retrieval.policies.account import Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.session.session import VideoSession
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.stream import Answered, FrameSeen, VideoLLM

SEED = 7
FRAMES = 8


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return VideoLLM.load()


class Newest:
    """A policy of one's own: the newest tokens."""

    name = "newest"

    def __init__(self, shape: Shape) -> None:
        self._heads, self._account = shape.kv_heads, Account(shape)

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        tokens = np.arange(max(0, chunk.start - 20), chunk.start)
        self._account.add(chunk, [len(tokens)] * self._heads, fetched=len(tokens) * self._heads)
        return [tokens] * self._heads

    def report(self) -> dict[str, Any]:
        return self._account.report()


def _without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as JSON gives them, less the speed and what names the model."""
    plain: dict[str, Any] = json.loads(json.dumps(figures))
    assert plain.pop("fps") > 0
    return plain


def test_it_does_what_the_command_line_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--video", f"procstream:{SEED}", "--frames", str(FRAMES), "--window", "2", "--set", "k=20"]
    assert cli.main(["run", *words, "--preset", "tiny", "--json", "run.json"]) == 0
    with vrex.open_session(
        f"procstream:{SEED}", frames=FRAMES, knobs={"window": 2, "k": 20}, config="tiny"
    ) as session:
        events = list(session.stream())
    assert sum(isinstance(event, FrameSeen) for event in events) == FRAMES == session.frames
    assert sum(isinstance(event, Answered) for event in events) == session.figures()["questions"] > 0
    figures = _without_times(session.figures())
    assert figures == _without_times(json.loads(Path("run.json").read_text()))
    assert (figures["settings"]["policy"], figures["ratio"]["frame"] < 1) == ("resv-bits", True)


def test_frames_an_own_policy_and_questions_in_between(model: VideoLLM) -> None:
    video = make(SEED, FRAMES)
    session = vrex.open_session(video.frames, model=model, policy=Newest, mode="narrate")
    first = ""
    for event in session.stream():
        if isinstance(event, FrameSeen) and event.index == 4:
            first = session.ask("now")
    last = session.ask("now")
    turns = [(turn["time"], turn["answer"]) for turn in session.conversation if turn["question"] == "now"]
    assert turns == [(2.0, first), (3.5, last)]
    figures = _without_times(session.figures())
    assert (figures["frames"], figures["questions"], figures["correct"]) == (FRAMES, 2, None)
    assert 0 < figures["ratio"]["frame"] < 1
    settings = figures["settings"]
    assert (settings["policy"], settings["video"], settings["model"]) == ("newest", None, None)
    assert (settings["resv"], settings["frames"], figures["offload"]) == (None, FRAMES, None)


def test_asking_at_a_frame_is_asking_right_after_it(model: VideoLLM) -> None:
    video = make(SEED, FRAMES)
    asked = vrex.open_session(video.frames, model=model, policy="full", ask=[(2.25, "now")])
    events = list(asked.stream())
    session = vrex.open_session(iter(video.frames), model=model, policy="full")
    answer = ""
    for event in session.stream():
        if isinstance(event, FrameSeen) and event.index == 4:
            answer = session.ask("now")
    assert [event.text for event in events if isinstance(event, Answered)] == [answer]
    assert asked.figures()["ratio"] == session.figures()["ratio"]


def test_an_own_configuration_is_told_whole(model: VideoLLM, tmp_path: Path) -> None:
    own = replace(preset("tiny"), name="mine", mean=MeanConfig(lanes=4))
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(own), encoding="utf-8")
    for config in (own, path, str(path)):
        settings = vrex.open_session(f"procstream:{SEED}", model=model, config=config).figures()["settings"]
        assert (settings["preset"], settings["config"]) == ("mine", own.to_dict())
    settings = vrex.open_session(f"procstream:{SEED}", model=model).figures()["settings"]
    assert settings["preset"] == "edge"
    assert "config" not in settings


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"config": "huge"}, "unknown preset 'huge': choose one of tiny, "),
        ({"config": "none.toml"}, "configuration none.toml cannot be read"),
        ({"policy": "best"}, "policy 'best' is unknown; choose one of full, "),
        ({"policy": "topk", "knobs": {"alpha": 1}}, "policy topk has no knob 'alpha'; choose one of ratio"),
        ({"policy": Newest, "knobs": {"ratio": 1}}, "knobs belong to a policy by its name"),
        (
            {"policy": Newest, "backend": "rtl"},
            "--backend rtl has no meaning with --policy newest, which does",
        ),
        ({"offload": "chip"}, "--offload chip makes the decoder itself; give the folder of the model"),
        ({"offload": "layer"}, "--offload layer makes the decoder itself; give the folder of the model"),
        ({"offload": "core", "lxe_preset": "huge"}, "--lxe-preset: unknown preset 'huge'"),
    ],
)
def test_what_cannot_be_opened(model: VideoLLM, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as raised:
        vrex.open_session(f"procstream:{SEED}", model=model, **options)
    assert str(raised.value).startswith(says)


def test_a_cache_goes_on(model: VideoLLM, tmp_path: Path) -> None:
    video = make(SEED, FRAMES).frames
    options: dict[str, Any] = {"model": model, "cache": tmp_path / "kv"}
    with vrex.open_session(video[:5], **options) as session:
        assert session.resumed is None
        list(session.stream())
    with vrex.open_session(video, **options) as session:
        assert session.resumed is not None
        assert session.resumed.frames == 5
        assert len(list(session.stream())) == session.frames == FRAMES - 5


@pytest.mark.parametrize("bits", [None, 16, 4])
def test_stores_of_coded_tokens_hold_four_bits_by_default(model: VideoLLM, bits: int | None) -> None:
    options: dict[str, Any] = {"model": model, "frames": 16, "policy": "resv-bits", "offload": "dre"}
    knobs = {"window": 1, "k": 20} | ({} if bits is None else {"kv_bits": bits})
    with vrex.open_session(f"procstream:{SEED}", config="tiny", knobs=knobs, **options) as session:
        assert session.settings["kv_bits"] == (bits or 4)
        for _ in session.stream():
            pass
        figures = session.figures()
    # Of 64 dimensions: 256 bytes, or 72 in whole beats of 8.
    size = 256 if bits == 16 else 72
    assert figures["fetched"]["bytes"] == size * figures["fetched"]["tokens"] > 0


def test_public_names() -> None:
    assert vrex.VideoSession is VideoSession
    assert "open_session" in vrex.__all__
    assert inspect.signature(vrex.open_session).return_annotation
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vrex.nothing
