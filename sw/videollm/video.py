"""Reads video files picture by picture, at the rate and size that a video LLM wants."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vrex.errors import UserError
from vrex.sw.videollm.container import opened, rate, seconds
from vrex.sw.videollm.timeline import Timeline, read_timeline

FASTEST = 1000.0
"""Most frames per second that may be asked for."""
ROUNDING = Fraction(1, 2000)
"""Most seconds by which a rounded time stamp may be late: half of Matroska's milliseconds."""
SHOWN_DAMAGE = 5
"""So many places of damage a warning names."""
# Averages over each pixel's area. Without FULL_CHR_H_INT swscale drops chroma rows before it averages and
# colours bleed: an rms error of 7.0 instead of 2.4 (of 255) on the .mp4 of a ProcStream video.
FILTER = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


class VideoReader:
    """The pictures of a video file; every `iter()` starts from the beginning and reads the file anew.

    Yields uint8 [size, size, 3] (RGB), picture i being what the video shows i / `fps` seconds after its
    first frame; one decoded frame is held at a time. Times are those of the container, counted from the first
    frame that can be decoded; where they begin anew, as in two recordings joined, they go on.

    Damage loses nothing else: what can be decoded is shown, and a frame stays where those behind it are lost.
    A file that is cut off ends with its last frame.

    Attributes:
        frame_count: the exact number of pictures, None if the file keeps no time (a raw stream).
        duration: the length in seconds, or None likewise.
        damaged: where the iteration under way or the last one found damage, in seconds, ascending and rounded
            to milliseconds; at most one for each second. A raw stream cut between frames is just shorter.
    """

    def __init__(
        self, path: Path, fps: Fraction, size: int, timeline: Timeline, first: Fraction, tolerance: Fraction
    ) -> None:
        self.path = path
        self.size = size
        self.fps = float(fps)
        self.damaged: list[float] = []
        self._exact_fps = fps
        self._timeline = timeline
        self._tolerance = tolerance
        self._length = None if timeline.end is None else max(timeline.end - first, Fraction(0))
        self.duration = None if self._length is None else float(self._length)
        self.frame_count = None if self._length is None else max(1, self._pictures_before(self._length))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        self.damaged.clear()
        given = 0
        for frame, until in self._shown():
            due = self._pictures_before(until)
            if self.frame_count is not None:
                due = min(due, self.frame_count)
            if due == self.frame_count and not self._timeline.whole:
                self._note(self._length or Fraction(0))
            for _ in range(given, due):
                yield self._picture(frame)
            given = max(given, due)
            if given == self.frame_count:
                return

    def damage(self) -> str | None:
        """A sentence on what `damaged` holds, None where it holds nothing."""
        if not self.damaged:
            return None
        times = ", ".join(f"{time:.2f}" for time in self.damaged[:SHOWN_DAMAGE])
        rest = len(self.damaged) - SHOWN_DAMAGE
        more = f" and {rest} more times" if rest > 0 else ""
        return f"{self.path} is cut off or damaged at {times} s{more}; what can be decoded was used"

    def _pictures_before(self, time: Fraction) -> int:
        """How many of the sampling times 0, 1/fps, 2/fps, ... lie before `time`."""
        return max(0, math.ceil((time - self._tolerance) * self._exact_fps))

    def _note(self, time: Fraction) -> None:
        rounded = round(float(time), 3)
        if not self.damaged or rounded >= self.damaged[-1] + 1:
            self.damaged.append(rounded)

    def _shown(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Each decoded frame and the time when the next one replaces it or the video ends."""
        last: av.VideoFrame | None = None
        end = time = Fraction(0)
        first: Fraction | None = None
        with opened(self.path) as (container, stream):
            interval = 1 / rate(container, stream)
            for seen in _decoded(container, stream, self._timeline):
                frame, stamp = seen.frame, seen.stamp
                if frame is None:
                    behind = time if first is None or stamp is None else stamp - first
                    self._note(max(time, behind))
                    continue
                if first is None:
                    first = stamp or Fraction(0)
                    begin = None if self._timeline.by_decoding else self._timeline.begin
                    if stamp is not None and begin is not None and stamp > begin + interval / 2:
                        self._note(time)  # what precedes the first key frame is lost
                elif stamp is None:
                    time += interval
                else:
                    time = max(time, stamp - first)
                if seen.damaged:
                    self._note(time)
                if last is not None:
                    yield last, time
                last, end = frame, time + (seconds(frame.duration, frame.time_base) or interval)
        if last is None:
            raise _shows_nothing(self.path)
        if self._length is None and not self._timeline.whole:
            self._note(end)
        yield last, max(end, self._length or end)

    def _picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture: Any = frame.reformat(self.size, self.size, "rgb24", interpolation=FILTER).to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def open_video(path: Path | str, fps: float | None, size: int) -> VideoReader:
    """Open a video file of any kind that FFmpeg knows; its packets are read once, to know its times.

    `fps` is the number of pictures wanted per second, None takes the file's average rate; more than the file
    has repeats frames. Pictures are squashed to `size` x `size` as SigLIP's processor does, whatever their
    aspect ratio, each pixel the average over its area (swscale's area filter; bilinear where it enlarges),
    and turned by the file's rotation if that is a multiple of 90 degrees.

    Raises UserError if there is no such file, FFmpeg can't decode it, it is a picture, text or sound, it
    shows nothing, it has lost its index, or `fps` or `size` makes no sense.
    """
    path = Path(path)
    if fps is not None and not 0 < fps <= FASTEST:
        raise UserError(f"{fps:g} frames a second cannot be read; choose more than 0 and up to {FASTEST:g}")
    if size < 1:
        raise UserError(f"pictures of {size} x {size} pixels cannot be read; choose a size of at least 1")
    with opened(path) as (container, stream):
        timeline = read_timeline(path, container, stream)
        exact_fps = rate(container, stream) if fps is None else Fraction(fps)
        tolerance = min(ROUNDING, (stream.time_base or ROUNDING) / 2)
    with opened(path) as (container, stream):
        frames = (seen for seen in _decoded(container, stream, timeline) if seen.frame is not None)
        first = next(frames, None)
    if first is None:
        raise _shows_nothing(path)
    # Frames leave the decoder later than their packets enter it, the last one as well as the first.
    begin = timeline.begin if timeline.by_decoding else first.stamp
    return VideoReader(path, exact_fps, size, timeline, begin or Fraction(0), tolerance)


@dataclass(frozen=True)
class _Decoded:
    """A frame, or a place where one may be lost.

    Attributes:
        frame: None where something could not be decoded.
        stamp: seconds on the time line, None if nothing tells.
        damaged: whether something is wrong there.
    """

    frame: av.VideoFrame | None
    stamp: Fraction | None
    damaged: bool


def _decoded(container: InputContainer, stream: VideoStream, timeline: Timeline) -> Iterator[_Decoded]:
    """What becomes of each packet; frames come in the order in which they are shown."""
    for packet, broken in timeline.packets(container, stream):
        if packet is None:
            yield _Decoded(None, None, True)
            continue
        stamp = seconds(packet.pts, packet.time_base) if timeline.stamped else None
        if broken or packet.is_corrupt:
            yield _Decoded(None, stamp, True)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except FFmpegError:
            yield _Decoded(None, stamp, True)
            continue
        for frame in frames:
            ticks = frame.dts if timeline.by_decoding else frame.pts
            shown = seconds(ticks, frame.time_base) if timeline.stamped else None
            yield _Decoded(frame, shown, frame.is_corrupt)


def _shows_nothing(path: Path) -> UserError:
    return UserError(f"{path} shows no picture that can be decoded; give another video")
