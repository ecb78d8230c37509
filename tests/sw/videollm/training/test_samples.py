"""Samples of the trainer: the tokens that the product's stream feeds, and the words that come next."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from vrex.errors import UserError
from vrex.sw.videollm.checkpoint import SHIPPED
from vrex.sw.videollm.procstream import EASY, HARD, LEVELS, Level, ProcVideo, Question, make, make_needles
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.training.samples import FRAME_TOKENS, NOTHING, Mix, Sample, collate, draw, encode, words
from vrex.sw.videollm.videollm import VideoLLM

OLDER = replace(EASY, older=True)
VOCABULARY = {word: number for number, word in enumerate(words(HARD))}
SPACE = words(HARD)


def text(sample: Sample) -> str:
    """The stream in words, a frame being F."""
    return " ".join(SPACE[number] for number in sample.ids).replace(" ".join(["<v>"] * FRAME_TOKENS), "F")


def learnt(sample: Sample) -> list[tuple[str, str]]:
    """(word, word to be predicted there)."""
    places = np.flatnonzero(sample.labels != NOTHING)
    return [(SPACE[sample.ids[place]], SPACE[sample.labels[place]]) for place in places]


def a_video(frames: int, questions: list[Question], narration: list[tuple[float, str]]) -> ProcVideo:
    return ProcVideo(0, 2.0, np.zeros((frames, 64, 64, 3), np.uint8), [], questions, narration)


def test_a_stream_by_hand() -> None:
    asked = [
        Question(0.25, "now", "now", "ring fall"),
        Question(1.25, "needle   0%", "color of ring fall", "red"),
        Question(1.25, "needle 100%", "color of star blink", "blue"),
    ]
    told = encode(a_video(4, asked, [(1.0, "ring fall")]), VOCABULARY, narrated=True)
    assert text(told) == (
        "<bos> narrate [ F ] User: now Assistant: ring fall <eos> [ F , F ] Assistant: ring fall <eos> "
        "] User: color of ring fall Assistant: red <eos> ] User: color of star blink Assistant: blue <eos> "
        "[ F ,"
    )
    name = [("Assistant:", "ring"), ("ring", "fall"), ("fall", "<eos>")]
    colors = [("Assistant:", "red"), ("red", "<eos>"), ("Assistant:", "blue"), ("blue", "<eos>")]
    assert learnt(told) == [*name, ("<v>", ","), ("<v>", "]"), *name, *colors, ("<v>", ",")]
    assert [kind for kind, _, _ in told.answers] == ["now", "narrate", "older", "older"]
    for (_, first, end), answer in zip(
        told.answers, ("ring fall <eos>", "ring fall <eos>", "red <eos>", "blue <eos>"), strict=True
    ):
        assert " ".join(SPACE[number] for number in told.labels[first:end]) == answer
    quiet = encode(a_video(4, asked, [(1.0, "ring fall")]), VOCABULARY, narrated=False)
    assert text(quiet).startswith(
        "<bos> quiet [ F ] User: now Assistant: ring fall <eos> [ F , F ] User: color"
    )
    assert np.all((told.weights > 0) == (told.labels != NOTHING))


def test_the_vocabulary_is_the_shipped_one() -> None:
    vocabulary = Tokenizer.from_file(str(SHIPPED / "tokenizer.json")).get_vocab()
    assert {word: number for number, word in enumerate(words(EASY))} == vocabulary
    assert len(words(HARD)) == len(set(words(HARD))) <= 128


@pytest.mark.parametrize("narrated", [False, True])
def test_the_stream_feeds_the_same_tokens(narrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped model, which answers right, so that what it says is what a sample holds."""
    model = VideoLLM.load()
    video = make(1, 40)
    rows: list[np.ndarray] = []
    feed = Stream._feed

    def recorded(stream: Stream, x: np.ndarray, stage: str) -> np.ndarray:
        rows.append(x)
        return feed(stream, x, stage)

    monkeypatch.setattr(Stream, "_feed", recorded)
    stream = Stream(model, mode="narrate" if narrated else "quiet", fps=video.fps)
    asked = [(question.time, question.text) for question in video.questions]
    assert len(list(stream.run(video.frames, asked))) > 41
    sample = encode(video, {word: number for number, word in enumerate(words(EASY))}, narrated)
    expected = model.embed_text(sample.ids.tolist())
    expected[sample.ids == 3] = np.concatenate([model.embed_frame(frame) for frame in video.frames])
    fed = np.concatenate(rows)
    # The last word that the model or the sample adds waits for what comes next.
    assert len(expected) - len(fed) in (0, 1, 2)
    np.testing.assert_array_equal(fed, expected[: len(fed)])


@pytest.mark.parametrize("level", [EASY, OLDER, HARD], ids=["easy", "older", "hard"])
def test_samples_are_sparse_and_of_the_wanted_kinds(level: Level) -> None:
    kinds: dict[str, int] = {}
    for seed in range(14):
        sample = draw(Mix(level), seed, 130)
        answers = [kind for kind, _, _ in sample.answers if kind != "narrate"]
        for kind in answers:
            kinds[kind] = kinds.get(kind, 0) + 1
        assert 1 <= len(answers) <= max(5, round(130 / level.frames_per_question))
        assert sample.frames.shape == (130, 64, 64, 3)
        assert (sample.ids == 3).sum() == 1300
    assert ("older" in kinds) == level.older
    assert {"now", "next", "task", "plan", "goal", "first", "color"} <= set(kinds)
    told = {kind for seed in range(8) for kind, _, _ in draw(Mix(level, ("now",)), seed, 40).answers}
    assert told == {"now", "narrate"}


def test_one_step_at_least_goes_without_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrex.sw.videollm.training.samples.NEEDLES", 0.0)
    for seed in range(15):
        finished = sum(step.end <= 60 for step in make(seed, 60).steps)
        assert len([kind for kind, _, _ in draw(Mix(EASY), seed, 60).answers if kind != "narrate"]) < finished


@pytest.mark.parametrize("level", [OLDER, HARD], ids=["older", "hard"])
def test_needles_in_a_row_are_part_of_the_mix(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked about recipes long gone, at the end of the video."""
    monkeypatch.setattr("vrex.sw.videollm.training.samples.NEEDLES", 1.0)
    sample, video = draw(Mix(level), 3, 300), make_needles(3, 300, level=level)
    assert np.array_equal(sample.frames, video.frames)
    asked = [number for kind, number, _ in sample.answers if kind == "older"]
    assert len(asked) == len(video.questions) >= 3
    assert asked[0] > np.flatnonzero(sample.ids == 3)[10 * (round(video.questions[0].time * 2) - 1)]
    monkeypatch.setattr("vrex.sw.videollm.training.samples.NEEDLES", 0.0)
    assert np.array_equal(draw(Mix(level), 3, 60).frames, make(3, 60, level=level).frames)


def test_the_same_seed_gives_the_same_sample() -> None:
    one, two = (draw(Mix(HARD), 5, 60) for _ in range(2))
    assert np.array_equal(one.ids, two.ids)
    assert np.array_equal(one.frames, two.frames)
    assert not np.array_equal(one.frames, draw(Mix(HARD), 6, 60).frames)


def test_batches_are_filled_up() -> None:
    samples = [draw(Mix(level), 1, 30) for level in LEVELS.values()]
    batch = collate(samples)
    assert batch.frames.shape == (60, 64, 64, 3)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        assert np.array_equal(batch.ids[row, :n], sample.ids)
        assert np.all(batch.ids[row, n:] == 0)
        assert np.all(batch.labels[row, n:] == NOTHING)
        assert np.all(batch.weights[row, n:] == 0)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UserError, match="no kind of question 'why'"):
        Mix(EASY, ("why",))
