"""The stream loop: what enters the model in which order, what comes out, and what is refused."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.videollm import decoder
from vrex.sw.videollm.procstream.procvideo import make
from vrex.sw.videollm.stream import Answered, Event, FrameSeen, PastTheEndError, Spoke, Stream
from vrex.sw.videollm.videollm import VideoLLM

PROTOCOL = ["<pad>", "<bos>", "<eos>", "<v>", "[", ",", "]", "User:", "Assistant:"]
WORDS = [*PROTOCOL, "narrate", "quiet", "now", "red"]
EOS, PLACEHOLDER = 2, 3


class Recorder(Stream):
    """A stream that remembers the token ids of every chunk and says what it is told to say.

    `script` holds the tokens the model "predicts", one a chunk; the interval word when it is used up.
    """

    def __init__(self, model: VideoLLM, script: Sequence[int] = (), **settings: Any) -> None:
        super().__init__(model, **settings)
        self.chunks: list[tuple[str, str]] = []
        self.script, self.sure = list(script), 10.0

    def _feed(self, x: np.ndarray, stage: str) -> np.ndarray:
        table = self.model.decoder.embeddings
        ids = [
            next((i for i, row in enumerate(table[: len(WORDS)]) if (row == e).all()), PLACEHOLDER) for e in x
        ]
        words = " ".join(WORDS[i] for i in ids)
        self.chunks.append((stage, words.replace(" ".join(["<v>"] * 7), "F")))
        logits = np.zeros(len(table), dtype=np.float32)
        logits[self.script.pop(0) if self.script else self.model.tokenizer.interval] = self.sure
        return logits


def frames(count: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_watching_quietly(tiny: VideoLLM) -> None:
    stream = Recorder(tiny)
    events = list(stream.run(frames(3)))
    assert events == [FrameSeen(0, 0.0), FrameSeen(1, 0.5), FrameSeen(2, 1.0)]
    assert stream.chunks == [("frame", "<bos> quiet [ F"), ("frame", ", F"), ("frame", ", F")]


def test_a_question_between_frames(tiny: VideoLLM) -> None:
    now, red, comma = 11, 12, 5
    stream = Recorder(tiny, [comma, comma, red, red, EOS])
    events = list(stream.run(frames(3), [(0.75, "now red")]))
    assert events == [
        FrameSeen(0, 0.0),
        FrameSeen(1, 0.5),
        Answered(0.75, "now red", "red red"),
        FrameSeen(2, 1.0),
    ]
    assert [words for _, words in stream.chunks] == [
        "<bos> quiet [ F",
        ", F",
        "] User: now red Assistant:",
        "red",
        "red",
        "<eos> [ F",
    ]
    assert [stage for stage, _ in stream.chunks] == ["frame", "frame", "text", "text", "text", "frame"]
    assert now in tiny.tokenizer.turn("now red")


def test_narration_then_question_after_the_same_frame(tiny: VideoLLM) -> None:
    """As in training: the answer of the narration is followed by the next closing word, with no opening."""
    stream = Recorder(tiny, [6, 12, EOS, 11, EOS, 5], mode="narrate")
    events = list(stream.run(frames(2), [(0.25, "now")]))
    assert events == [FrameSeen(0, 0.0), Spoke(0.0, "red"), Answered(0.25, "now", "now"), FrameSeen(1, 0.5)]
    assert [words for _, words in stream.chunks] == [
        "<bos> narrate [ F",
        "] Assistant:",
        "red",
        "<eos> ] User: now Assistant:",
        "now",
        "<eos> [ F",
    ]


def test_order_of_questions(tiny: VideoLLM) -> None:
    """Before the first frame at or after their time, in time order, ties as given, the end included."""
    asked = [(1.5, "red red"), (0.5, "now"), (0.0, "red"), (1.5, "now now"), (0.51, "red now")]
    stream = Recorder(tiny, [EOS, 5, EOS, 5, EOS, 5, EOS, EOS])
    events = list(stream.run(frames(3), asked))
    seen = [e.question if isinstance(e, Answered) else f"frame {round(e.time * 2)}" for e in events]
    assert seen == ["red", "frame 0", "now", "frame 1", "red now", "frame 2", "red red", "now now"]
    assert stream.chunks[0] == ("text", "<bos> quiet [ ] User: red Assistant:")


def test_threshold(tiny: VideoLLM) -> None:
    """The interval word is most likely, but speaks for watching on only from the threshold on."""
    for threshold, speaks in ((0.3, False), (0.5, True)):
        stream = Recorder(tiny, [5, EOS], threshold=threshold)
        stream.sure = float(np.log(15 * 0.4 / 0.6))  # 0.4 among 16 words
        assert any(isinstance(event, Spoke) for event in stream.run(frames(1))) == speaks


def test_longest_answer(tiny: VideoLLM) -> None:
    stream = Recorder(tiny, [5] + [12] * 50, max_answer=4)
    events = list(stream.run(frames(2), [(0.25, "now")]))
    assert Answered(0.25, "now", "red red red red") in events
    assert ("frame", "<eos> [ F") in stream.chunks


@pytest.mark.parametrize("mode", ["quiet", "narrate"])
def test_the_shipped_model_answers(shipped: VideoLLM, mode: str) -> None:
    seeds = (1, 2)
    print("seeds", seeds)
    for seed in seeds:
        video = make(seed, 48)
        asked = [(q.time, q.text) for q in video.questions]
        assert asked
        events = list(Stream(shipped, mode=mode).run(video.frames, asked))
        assert [e.text for e in events if isinstance(e, Answered)] == [q.answer for q in video.questions]
        spoken = [(e.time, e.text) for e in events if isinstance(e, Spoke)]
        expected = video.narration if mode == "narrate" else []
        assert len(set(spoken) ^ set(expected)) <= 1
        if mode == "narrate":
            assert spoken


def test_chunks_reach_the_policy(tiny: VideoLLM) -> None:
    seen = []

    class Watcher:
        name = "watcher"

        def select(self, chunk: Any) -> None:
            seen.append((chunk.layer, chunk.stage, chunk.start, chunk.q.shape[1]))

    stream = Stream(tiny, policy=Watcher(), threshold=0.0, max_answer=1)
    stream._wants_to_speak = lambda logits: False  # type: ignore[method-assign]
    list(stream.run(frames(2), [(0.25, "now")]))
    chunks = [entry for entry in seen if entry[0] == 0]
    assert chunks[:2] == [(0, "frame", 0, 10), (0, "text", 10, 4)]
    assert chunks[-1][1] == "frame"
    assert len(seen) == 3 * len(chunks)
    assert stream.cache.length == chunks[-1][2] + chunks[-1][3]


def refused(model: VideoLLM, asked: list[tuple[float, str]], **settings: Any) -> str:
    """The refusal must come from `run` itself, before a frame is touched."""

    def untouched() -> Iterator[np.ndarray]:
        raise AssertionError("a frame was read")
        yield

    with pytest.raises(UserError) as caught:
        Stream(model).run(untouched(), asked, **settings)
    print(caught.value)
    return str(caught.value)


def test_refused_before_any_work(tiny: VideoLLM) -> None:
    message = refused(tiny, [(0.0, "now"), (1.0, "now purple")])
    assert 'does not know the word "purple"' in message
    assert message.endswith("it knows narrate, quiet, now, red")
    for word in ("<v>", "<eos>", "<bos>", "<pad>"):
        assert f'the word "{word}"' in refused(tiny, [(0.0, f"now {word} red")])
    assert "empty" in refused(tiny, [(0.0, "  ")])
    assert "-1 s" in refused(tiny, [(-1.0, "now")])
    assert "nan s" in refused(tiny, [(float("nan"), "now")])
    assert "past the end of the video (2 s)" in refused(tiny, [(2.01, "now")], frame_count=4)


def test_long_vocabulary_is_shortened(shipped: VideoLLM) -> None:
    message = refused(shipped, [(0.0, "what happens")])
    assert '"what"' in message
    assert "now, next, task" in message
    assert "more words" in message


def test_past_the_end(tiny: VideoLLM) -> None:
    with pytest.raises(UserError, match="past the end"):
        Stream(tiny).run(frames(4), [(2.01, "now")])
    stream = Recorder(tiny, [5, 5, EOS])
    assert isinstance(list(stream.run(iter(frames(2)), [(1.0, "now")]))[-1], Answered)
    late = Recorder(tiny).run(iter(frames(2)), [(1.01, "now")])
    assert [next(late), next(late)] == [FrameSeen(0, 0.0), FrameSeen(1, 0.5)]
    with pytest.raises(UserError, match="past the end"):
        next(late)


def test_an_end_that_was_not_known_costs_no_answer(tiny: VideoLLM) -> None:
    asked = [(0.4, "now"), (0.9, "now red"), (1.5, "red"), (7.0, "now")]
    stream = Recorder(tiny, [5, EOS, 5, EOS, 5, EOS])
    seen: list[Event] = []
    with pytest.raises(PastTheEndError) as late:
        seen.extend(stream.run(iter(frames(2)), asked))
    assert [event.question for event in seen if isinstance(event, Answered)] == ["now", "now red"]
    assert str(late.value).startswith(
        'question "red": time 1.5 s is past the end of the video (1 s), as is one'
    )
    assert late.value.questions == asked[2:]


def test_a_long_question_is_attended_to_as_one(shipped: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in blocks of rows gives what one block gives, bit for bit."""
    assert decoder.BLOCK_ROWS == 256
    decoded = shipped.decoder
    x = decoded.embeddings[np.random.default_rng(2).integers(3, 100, 640)]
    past = decoded.embeddings[np.random.default_rng(3).integers(3, 100, 40)]

    def hidden(rows: int) -> np.ndarray:
        monkeypatch.setattr(decoder, "BLOCK_ROWS", rows)
        cache = decoded.new_cache()
        decoded.forward(past, cache)
        return decoded.forward(x, cache)

    np.testing.assert_array_equal(hidden(256), hidden(1000))


@pytest.mark.parametrize(("count", "says"), [(4097, "has 4,097 tokens; ask with at most 4,096")])
def test_the_longest_question(shipped: VideoLLM, count: int, says: str) -> None:
    words = shipped.tokenizer
    assert len(words.turn("now " * (count - 1))) == count - 1 + 3
    for ask in (words.turn, lambda text: words.opening("quiet", text)):
        with pytest.raises(UserError, match=says) as raised:
            ask("now " * count)
        assert len(str(raised.value)) < 200
    with pytest.raises(UserError, match="has 200,000 characters; ask with at most 131,072"):
        words.turn(" " * 200_000)
    with pytest.raises(UserError, match="does not know the word") as raised:
        words.turn("now " * 1000 + "x" * 1000)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((20, 21, 3), dtype=np.uint8),
        np.zeros((20, 20), dtype=np.uint8),
        np.zeros((20, 20, 3), dtype=np.float32),
    ],
)
def test_frames_of_another_form(tiny: VideoLLM, frame: np.ndarray) -> None:
    with pytest.raises(UserError, match="frame 1 is"):
        list(Recorder(tiny).run([frames(1)[0], frame]))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"mode": "loud"}, "'loud' is unknown"),
        ({"fps": 0}, "number above 0"),
        ({"fps": float("inf")}, "number above 0"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"cache_dtype": "int4"}, "'int4' is unknown"),
        ({"max_answer": 0}, "at least 1"),
    ],
)
def test_bad_settings(tiny: VideoLLM, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        Stream(tiny, **settings)


def test_one_run_only(tiny: VideoLLM) -> None:
    stream = Stream(tiny)
    list(stream.run(frames(1)))
    with pytest.raises(RuntimeError):
        stream.run(frames(1))


def test_protocol_words_come_from_the_config(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(frame_token_interval="red", stream_open="]", stream_close="[", user_prefix="now")
    stream = Recorder(VideoLLM.load(folder), [12, EOS])
    list(stream.run(frames(3), [(0.5, "quiet")]))
    assert [words for _, words in stream.chunks] == [
        "<bos> quiet ] F",
        "[ now quiet Assistant:",
        "<eos> ] F",
        "red F",
    ]
