"""``vrex.open_session``: what ``vrex run`` does, from Python.

with vrex.open_session("procstream:7", backend="golden", frames=48) as session:
    for event in session.stream():
        print(event)
    print(session.ask("now"))
    print(session.figures()["ratio"])
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec

from vrex.model.config_file import load, own_config
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.session.options import CACHE, CHIP, CHIP_PRESET, PRESET, SIZES, SessionOptions
from vrex.sw.session.policy import load_model, make_policy, open_lxe
from vrex.sw.session.source import open_source
from vrex.sw.videollm.stream import Answered, Event, FrameSeen, PastTheEndError, Spoke, Stream

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a cache file held when the session began.

    Attributes:
        frames, tokens: that it goes on behind.
        lost_bytes: of a chunk that was not whole.
    """

    frames: int
    tokens: int
    lost_bytes: int


class VideoSession:
    """One video through one model with one policy; a context manager.

    Attributes:
        options: what it was opened with.
        config: of the accelerator.
        model: the video LLM.
        source: frames and questions.
        policy: what retrieves.
        settings: the policy's knobs.
        resumed: what the cache file held, None where there was none or nothing in it.
        conversation: turns so far: `time` (seconds of the video), `question` (None when the model spoke
            unasked), `answer` and `expected` (None: unknown).
        unanswered: (seconds, question) of those that turned out to lie behind the end.
        frames: seen so far.
        seconds: of wall time that went into them and into the turns.
    """

    def __init__(self, options: SessionOptions) -> None:
        """Loads the model, opens the video and the accelerator.

        Raises:
            UserError: any of them is not there or broken, or does not fit the others.
        """
        default = CHIP_PRESET if options.offload == CHIP else PRESET
        self.options, self.config = options, load(default if options.config is None else options.config)
        self._lxe = open_lxe(options)
        self.model = load_model(options, self._lxe)
        size = self.model.config.vision.image_size
        self.source = open_source(options.video, size, options.frames, options.fps, options.ask)
        with contextlib.ExitStack() as files:
            self.policy, self.settings = make_policy(
                options, self.config, self.model, self.source, self._lxe, files
            )
            self._stream = Stream(self.model, self.policy, options.mode, self.source.fps)
            self.resumed = self._resume()
            self._files = files.pop_all()
        known = zip(self.source.questions, self.source.answers or [], strict=False)
        self._expected = iter([answer for (asked, _), answer in known if not self._stream.is_past(asked)])
        self.conversation: list[dict[str, Any]] = []
        self.unanswered: list[tuple[float, str]] = []
        self.frames = 0
        self.seconds = self._time = 0.0

    def _resume(self) -> Resumed | None:
        """Lets the stream go on behind what the cache holds."""
        if self.options.cache is None:
            return None
        from vrex.sw.retrieval.cache.tables import StoredTables

        assert isinstance(self.policy, Resv)
        tables = self.policy.tables
        assert isinstance(tables, StoredTables)
        if tables.stage is None:
            return None
        self._stream.resume(tables.frames, tables.tokens, tables.stage)
        return Resumed(tables.frames, tables.tokens, tables.lost_bytes)

    def __enter__(self) -> "VideoSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the cache file, if there is one; the figures stay."""
        self._files.close()

    def stream(self) -> Iterator[Event]:
        """Streams the video with its questions; may be called once.

        Returns:
            An iterator of events; the work is done as it is drawn from.

        Raises:
            UserError: see `Stream.run`. What was answered before is in `conversation` and `figures`.
        """
        events = self._stream.run(
            self.source.frames, self.source.questions, frame_count=self.source.frame_count
        )
        return self._noted(events)

    def _noted(self, events: Iterator[Event]) -> Iterator[Event]:
        while True:
            begun = time.perf_counter()
            try:
                event = next(events, None)
            except PastTheEndError as late:
                self.unanswered = late.questions
                raise
            finally:
                self.seconds += time.perf_counter() - begun
            match event:
                case FrameSeen():
                    self.frames += 1
                case Spoke():
                    self._add_turn(event.time, None, event.text, None)
                case Answered():
                    self._add_turn(event.time, event.question, event.text, next(self._expected, None))
                case None:
                    return
            self._time = event.time
            yield event

    def ask(self, question: str) -> str:
        """Asks something now: between two events of `stream`, or after the last one.

        Asked right after a frame, it takes the place of what the model would have said of its own accord.

        Returns:
            The answer.

        Raises:
            UserError: the question is empty or holds a word that the model does not know.
        """
        begun = time.perf_counter()
        answer = self._stream.talk(self.model.tokenizer.turn(question))
        self.seconds += time.perf_counter() - begun
        self._add_turn(self._time, question, answer, None)
        return answer

    def _add_turn(self, seconds: float, asked: str | None, answer: str, expected: str | None) -> None:
        self.conversation.append({"time": seconds, "question": asked, "answer": answer, "expected": expected})

    def figures(self) -> dict[str, Any]:
        """The figures so far, as ``vrex run --json`` writes them."""
        asked = [turn for turn in self.conversation if turn["question"] is not None]
        known = self.source.answers is not None
        figures = {
            "frames": self.frames,
            "fps": self.frames / self.seconds if self.seconds else 0.0,
            "questions": len(asked),
            "correct": sum(turn["answer"] == turn["expected"] for turn in asked) if known else None,
            "offload": self.options.offload if self._is_resv else None,
            **self.policy.report(),
            "damaged": list(self.source.reader.damaged) if self.source.reader else [],
            "conversation": self.conversation,
            "unanswered": [list(question) for question in self.unanswered],
            "settings": self._settings(),
        }
        if "host" in figures:
            moved = sum(figures["host"].values())
            figures["host"] |= {"bytes_per_frame": moved / self.frames if self.frames else None}
        return figures | ({} if self._lxe is None else {"lxe": self._lxe_figures()})

    @property
    def _is_resv(self) -> bool:
        return self.options.policy_name == Resv.name

    def _settings(self) -> dict[str, Any]:
        """What the session was opened with, for JSON."""
        options = self.options
        return {
            "vrex": version("vrex"),
            "video": str(options.video) if isinstance(options.video, str | Path) else None,
            "frames": self.source.frame_count,
            "video_fps": self.source.fps,
            "ask": [list(item) for item in self.source.questions],
            "mode": options.mode,
            "model": str(options.model) if isinstance(options.model, str | Path) else None,
            "policy": options.policy_name,
            "fallback_for": options.fallback_for,
            "knobs": self.settings,
            "resv": self.settings if self._is_resv else None,
            "preset": self.config.name,
            "backend": options.backend,
            "offload": options.offload,
            "layers": None if options.layers is None else list(options.layers),
            "lxe_preset": options.lxe_preset,
            **{name: getattr(options, name) for name in SIZES},
            "check": options.check,
            "arithmetic": options.arithmetic,
            "cache": str(options.cache) if options.cache else None,
            **{name: getattr(options, name) for name in CACHE},
            **own_config(self.config),
        }

    def _lxe_figures(self) -> dict[str, Any]:
        """What the LXE did, and how its layers compare with software."""
        from vrex.sw.videollm.offload import OffloadedDecoder

        assert self._lxe is not None
        figures = {"preset": self._lxe.config.name, **dataclasses.asdict(self._lxe.report)}
        if isinstance(self.model.decoder, OffloadedDecoder):
            figures |= self.model.decoder.comparison.to_dict()
        return figures


def _opener(options: Callable[P, SessionOptions]) -> Callable[P, VideoSession]:
    """A function that takes what the options' constructor takes, for editors too."""

    def open_session(*args: P.args, **kwargs: P.kwargs) -> VideoSession:
        """Opens a session; the arguments are those of `vrex.sw.session.options.SessionOptions`.

        Raises:
            UserError: options contradict each other, or as `VideoSession`.
        """
        return VideoSession(options(*args, **kwargs))

    return open_session


open_session = _opener(SessionOptions)
