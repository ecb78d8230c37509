"""A live stream with the method names that VideoLLM-Online's users know (its `LiveInfer`)."""

import json
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.retrieval.policies.base import Policy
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.video import open_video
from vrex.sw.videollm.videollm import VideoLLM


class LiveInfer:
    """Streams frames and queries as they arrive; a call runs until a query is answered or the model speaks.

    Answers are those of `Stream.run` for the same frames and queries. Several of these may share one model.

    Attributes:
        history: what was said: `role` (`user` or `assistant`), `content`, `time` in seconds of the video,
            `fps` (frames watched a second of wall time so far) and `cost`, seconds of wall time it took.
        video_time: seconds of the video that have come in.

    Args:
        model: the model; None is the shipped checkpoint.
        policy: makes the retrieval policy of a stream; None attends to everything. `reset` calls it again.
        frame_fps: frames a second of the video's time.
        frame_token_interval_threshold: see `Stream`'s threshold.
        mode: ``"quiet"`` or ``"narrate"``.
        sequence: name of the stream in its log.
        log: file that gets a line of JSON, `sequence` included, for each entry of the history.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        model: VideoLLM | None = None,
        policy: Callable[[], Policy] | None = None,
        frame_fps: float = 2.0,
        frame_token_interval_threshold: float = 0.725,
        mode: str = "quiet",
        sequence: int = 0,
        log: Path | None = None,
    ) -> None:
        self.model = model or VideoLLM.load()
        self.frame_fps, self.mode, self.sequence, self.log = frame_fps, mode, sequence, log
        self.frame_token_interval_threshold = frame_token_interval_threshold
        self._make_policy = policy
        self.reset()

    def reset(self) -> None:
        """Forgets stream, video, queries and history; the model stays, and so does the log."""
        policy = None if self._make_policy is None else self._make_policy()
        threshold = self.frame_token_interval_threshold
        self.stream = Stream(self.model, policy, self.mode, self.frame_fps, threshold)
        self.history: list[dict[str, Any]] = []
        self.video_time = 0.0
        self._video: np.ndarray | None = None
        self._next_frame = self._watched = 0
        self._frames: deque[tuple[float, np.ndarray]] = deque()
        self._queries: deque[tuple[float, str, list[int]]] = deque()
        self._seconds = 0.0

    def load_video(self, video: Path | str | np.ndarray) -> None:
        """Takes a video to stream from; warns where a file is damaged.

        Args:
            video: a file, or its frames at `frame_fps`, uint8 [T, image_size, image_size, 3].

        Raises:
            UserError: the file cannot be read.
        """
        if not isinstance(video, np.ndarray):
            side = self.model.config.vision.image_size
            reader = open_video(video, self.frame_fps, side)
            video = np.stack(list(reader))
            if damage := reader.damage():
                warnings.warn(damage, stacklevel=2)
        self._video, self._next_frame = video, 0

    def input_video_stream(self, video_time: float) -> None:
        """Lets the frames up to a time of the video come in.

        Raises:
            UserError: no video was loaded.
        """
        if self._video is None:
            raise UserError("no video is loaded; call load_video first")
        last = min(int(video_time * self.frame_fps), len(self._video) - 1)
        for index in range(self._next_frame, last + 1):
            self._frames.append((index / self.frame_fps, self._video[index]))
        self._next_frame = max(self._next_frame, last + 1)
        self.video_time = video_time

    def input_query_stream(
        self, query: str, history: list[dict[str, Any]] | None = None, video_time: float | None = None
    ) -> None:
        """Takes a query in, to be answered before the first frame that is not earlier.

        Args:
            query: what to ask.
            history: gets the query's entry as well, besides `LiveInfer.history`.
            video_time: when it is asked; None is now.

        Raises:
            UserError: the query is empty or holds a word that the model does not know.
        """
        when = self.video_time if video_time is None else video_time
        turn = self.model.tokenizer.turn(query)
        entry = self._note("user", query, when, 0.0)
        if history is not None:
            history.append(entry)
        self._queries.append((when, query, turn))

    def __call__(self) -> tuple[str | None, str | None]:
        """Runs until a query is answered or the model speaks, or until all input is processed.

        Returns:
            (query, response): a query and its answer, None and what the model says of its own accord, or
            None twice when there is nothing to say.
        """
        while self._frames:
            if self._queries and self._queries[0][0] <= self._frames[0][0]:
                return self._answer()
            when, frame = self._frames.popleft()
            begun = time.perf_counter()
            speaks = self.stream.watch(self._watched, frame)
            self._watched += 1
            self._seconds += time.perf_counter() - begun
            if speaks:
                return None, self._respond(when, self.model.tokenizer.turn(None))
        if self._queries and self._queries[0][0] <= self.video_time:
            return self._answer()
        return None, None

    def _answer(self) -> tuple[str, str]:
        when, query, turn = self._queries.popleft()
        return query, self._respond(when, turn)

    def _respond(self, when: float, turn: list[int]) -> str:
        begun = time.perf_counter()
        response = self.stream.talk(turn)
        cost = time.perf_counter() - begun
        self._seconds += cost
        self._note("assistant", response, when, cost)
        return response

    def _note(self, role: str, content: str, when: float, cost: float) -> dict[str, Any]:
        """An entry of the history and of the log."""
        fps = self._watched / self._seconds if self._seconds else None
        entry = {"role": role, "content": content, "time": when, "fps": fps, "cost": cost}
        self.history.append(entry)
        if self.log is not None:
            try:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"sequence": self.sequence, **entry}) + "\n")
            except OSError as error:
                raise UserError(
                    f"log {self.log} cannot be written ({error.strerror}); name another"
                ) from error
        return entry
