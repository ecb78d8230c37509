"""The stream loop of VideoLLM-Online: watch frames, decide when to speak, answer questions.

The token stream is ``<bos> mode [ F , F , F ] User: question Assistant: answer <eos> [ F , ...``, F being a
frame's tokens. After a frame the model predicts the interval word (keep watching) or something else (speak).
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vrex.errors import UserError
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Policy
from vrex.sw.videollm.cache import DTYPES
from vrex.sw.videollm.tokenizer import shortened
from vrex.sw.videollm.videollm import VideoLLM

__all__ = ["Answered", "Event", "FrameSeen", "PastTheEndError", "Spoke", "Stream", "VideoLLM"]

MODES = ("quiet", "narrate")


@dataclass(frozen=True)
class FrameSeen:
    """A frame has passed through the model; ``time`` in seconds of the video."""

    index: int
    time: float


@dataclass(frozen=True)
class Spoke:
    """The model spoke of its own accord after the frame at ``time`` (seconds)."""

    time: float
    text: str


@dataclass(frozen=True)
class Answered:
    """The model answered a question asked at ``time`` (seconds)."""

    time: float
    question: str
    text: str


Event = FrameSeen | Spoke | Answered


class PastTheEndError(UserError):
    """Questions lie behind the end of the video.

    Attributes:
        questions: (seconds, text) of each.
    """

    def __init__(self, questions: Sequence[tuple[float, str]], end: float) -> None:
        """`end` is the video's, in seconds."""
        self.questions = list(questions)
        time, text = self.questions[0]
        others = len(self.questions) - 1
        more = f", as are {others} more" if others > 1 else ", as is one more" if others else ""
        super().__init__(
            f'question "{shortened(text)}": time {time:g} s is past the end of the video ({end:g} s){more}; '
            "give an earlier time"
        )


@dataclass(frozen=True)
class _Question:
    """`ids` are those of `Tokenizer.turn`."""

    time: float
    text: str
    ids: list[int]


class Stream:
    """One video through one model; use it for one `run`.

    Args:
        model: the loaded model.
        policy: chooses the past tokens to attend; None attends to all.
        mode: ``"quiet"`` (answers only) or ``"narrate"`` (also names what just ended).
        fps: frames per second of the video as fed.
        threshold: the interval word counts only when its probability reaches this; below, the model speaks.
        cache_dtype: ``"bfloat16"`` or ``"float32"``.
        max_answer: most tokens in an answer.
        question: asked before the first frame; `talk` on the turn of no question answers it.

    Raises:
        UserError: a setting is out of range or names something unknown, or the model can't be asked that.
    """

    def __init__(
        self,
        model: VideoLLM,
        policy: Policy | None = None,
        mode: str = "quiet",
        fps: float = 2.0,
        threshold: float = 0.725,
        cache_dtype: str = "bfloat16",
        max_answer: int = 100,
        question: str | None = None,
    ) -> None:
        _check_settings(mode, fps, threshold, cache_dtype, max_answer)
        self.model, self.policy, self.fps = model, policy, fps
        self.threshold, self.max_answer = threshold, max_answer
        self.cache = model.decoder.new_cache(cache_dtype)
        self._pending = model.tokenizer.opening(mode, question)
        self._before_frame: list[int] = []
        self._first = 0
        self._used = False

    def resume(self, frames: int, tokens: int, stage: str) -> None:
        """Goes on behind a past that the policy holds already; `run` then skips its frames and questions.

        Args:
            frames: of the past.
            tokens: of the past.
            stage: of its last chunk; an answer that it broke off counts as finished.
        """
        self._first = frames
        eos, words = self.model.config.text.eos[0], self.model.tokenizer
        self._pending = [eos] if stage == TEXT else []
        self._before_frame = words.resume() if stage == TEXT else [words.interval]
        for layer in self.cache.layers:
            layer.length = tokens

    def is_past(self, time: float) -> bool:
        """Whether a question at this time (seconds) was asked before the stream was resumed."""
        return self._first > 0 and time <= (self._first - 1) / self.fps

    def run(
        self,
        frames: Iterable[np.ndarray],
        questions: Sequence[tuple[float, str]] = (),
        frame_count: int | None = None,
    ) -> Iterator[Event]:
        """Stream the frames and questions through the model.

        Args:
            frames: uint8 [image_size, image_size, 3], RGB, in time order; or, embedded before, float32
                [frame tokens, hidden_size] as `VideoLLM.embed_frame` gives them.
            questions: (time in seconds, text). A question goes in before the first frame i with
                i / fps >= time, so (i + 0.5) / fps comes right after frame i.
            frame_count: number of frames where it is known; taken from ``frames`` if that has a length.

        Returns:
            An iterator of events; the work is done as it is drawn from.

        Raises:
            UserError: at once for a bad question, a negative time, or a time past a known end; while
                drawing for a frame of the wrong size.
            PastTheEndError: at once where the end is known; else after all other questions are answered.
        """
        if self._used:
            raise RuntimeError("a Stream serves one run; make a new one")
        self._used = True
        if frame_count is None and isinstance(frames, Sized):
            frame_count = len(frames)
        queue = [
            _Question(time, text, self.model.tokenizer.turn(text))
            for time, text in questions
            if not self.is_past(time)
        ]
        for question in queue:
            if not (question.time >= 0 and math.isfinite(question.time)):
                raise UserError(
                    f'question "{shortened(question.text)}": time {question.time:g} s is not a time in the '
                    "video; give seconds of at least 0"
                )
        if frame_count is not None and (late := self._past_the_end(queue, frame_count)):
            raise late
        return self._events(frames, deque(sorted(queue, key=lambda question: question.time)))

    def _events(self, frames: Iterable[np.ndarray], queue: deque[_Question]) -> Iterator[Event]:
        count = self._first
        for index, frame in enumerate(islice(frames, self._first, None), self._first):
            time = index / self.fps
            while queue and queue[0].time <= time:
                yield self._answer(queue.popleft())
            wants_to_speak = self.watch(index, frame)
            count = index + 1
            yield FrameSeen(index, time)
            # Whoever got the event may have talked with the model, which then has said enough.
            if wants_to_speak and not self._pending:
                yield Spoke(time, self.talk(self.model.tokenizer.turn(None)))
        while queue and queue[0].time <= count / self.fps:
            yield self._answer(queue.popleft())
        if late := self._past_the_end(queue, count):
            raise late

    def _past_the_end(self, queue: Iterable[_Question], frame_count: int) -> PastTheEndError | None:
        end = frame_count / self.fps
        late = [(question.time, question.text) for question in queue if question.time > end]
        return PastTheEndError(late, end) if late else None

    def watch(self, index: int, frame: np.ndarray) -> bool:
        """Feeds pending text and one frame, as `run` takes it; whether the model wants to speak then.

        For callers that feed the stream frame by frame; `run` does all of it.

        Args:
            index: number of the frame, for messages.
            frame: see `run`.

        Raises:
            UserError: a frame of the wrong size.
        """
        embedded = self._embed(index, frame)
        text = self.model.embed_text(self._pending + self._before_frame)
        self._pending, self._before_frame = [], [self.model.tokenizer.interval]
        return self._wants_to_speak(self._feed(np.concatenate([text, embedded]), FRAME))

    def _embed(self, index: int, frame: np.ndarray) -> np.ndarray:
        """A frame, or its embeddings, as float32 [frame tokens, hidden_size]."""
        config = self.model.config
        if frame.shape == (config.frame_tokens, config.text.hidden_size) and frame.dtype == np.float32:
            return frame
        side = config.vision.image_size
        if frame.shape != (side, side, 3) or frame.dtype != np.uint8:
            raise UserError(
                f"frame {index} is {frame.dtype} of shape {frame.shape}, but the model takes uint8 of shape "
                f"({side}, {side}, 3); resize the video"
            )
        return self.model.embed_frame(frame)

    def _wants_to_speak(self, logits: np.ndarray) -> bool:
        """VideoLLM-Online's decision: an interval word below the threshold does not count."""
        interval = self.model.tokenizer.interval
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        return probabilities[interval] < self.threshold or int(probabilities.argmax()) != interval

    def _answer(self, question: _Question) -> Answered:
        return Answered(question.time, question.text, self.talk(question.ids))

    def talk(self, turn: list[int]) -> str:
        """Closes the run of frames with the ids that `Tokenizer.turn` gives; returns the greedy answer."""
        words, eos = self.model.tokenizer, self.model.config.text.eos
        token = int(self._feed(self.model.embed_text([*self._pending, *turn]), TEXT).argmax())
        answer: list[int] = []
        while token not in eos and len(answer) < self.max_answer:
            answer.append(token)
            token = int(self._feed(self.model.embed_text([token]), TEXT).argmax())
        self._pending, self._before_frame = [eos[0]], words.resume()
        return words.decode(answer)

    def _feed(self, x: np.ndarray, stage: str) -> np.ndarray:
        """One chunk [rows, hidden_size] through the decoder; returns the last row's logits [vocab_size]."""
        hidden = self.model.decoder.forward(x, self.cache, stage, self.policy)
        return self.model.decoder.logits(hidden[-1:])[0]


def _check_settings(mode: str, fps: float, threshold: float, cache_dtype: str, max_answer: int) -> None:
    if mode not in MODES:
        raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    if not (fps > 0 and math.isfinite(fps)):
        raise UserError(f"frames per second are {fps:g}; give a number above 0")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold {threshold:g} is no probability; give a number from 0 to 1")
    if cache_dtype not in DTYPES:
        raise UserError(f"cache type {cache_dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if max_answer < 1:
        raise UserError(f"an answer of at most {max_answer} tokens says nothing; allow at least 1")
