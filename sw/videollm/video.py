"""Reads video files picture by picture, at the rate and size that a video LLM wants."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vrex.errors import UserError

FASTEST = 1000.0
"""Most frames per second that may be asked for."""
ROUNDING = Fraction(1, 2000)
"""Most seconds by which a rounded time stamp may be late: half of Matroska's milliseconds."""
MISSING = 2
"""A file that ends more than so many frame intervals before its declared end has been cut off."""
# Averages over each pixel's area. Without FULL_CHR_H_INT swscale drops chroma rows before it averages and
# colours bleed: an rms error of 7.0 instead of 2.4 (of 255) on the .mp4 of a ProcStream video.
FILTER = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
STILL_FORMATS = ("image2", "tty")
"""What FFmpeg also takes for a video: numbered pictures and text."""


class VideoReader:
    """The pictures of a video file; every `iter()` starts from the beginning and reads the file anew.

    Yields uint8 [size, size, 3] (RGB), picture i being what the video shows i / `fps` seconds after its
    first frame; one decoded frame is held at a time. `frame_count` is the exact number of pictures and
    `duration` the length in seconds; both are None if the file does not declare its length.

    Iterating raises UserError where the file turns out to be damaged or cut off. A cut is noticed if the
    container declares a length or the cut goes through a frame; a raw stream cut between frames is just a
    shorter video.
    """

    def __init__(
        self, path: Path, fps: Fraction, size: int, duration: Fraction | None, tolerance: Fraction
    ) -> None:
        self.path = path
        self.size = size
        self.fps = float(fps)
        self.duration = None if duration is None else float(duration)
        self._exact_fps = fps
        self._exact_duration = duration
        self._tolerance = tolerance
        self.frame_count = None if duration is None else max(1, self._pictures_before(duration))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        given = 0
        for frame, until in self._shown():
            due = self._pictures_before(until)
            if self.frame_count is not None:
                due = min(due, self.frame_count)
            for _ in range(given, due):
                yield self._picture(frame)
            given = max(given, due)
            if given == self.frame_count:
                return

    def _pictures_before(self, time: Fraction) -> int:
        """How many of the sampling times 0, 1/fps, 2/fps, ... lie before `time`."""
        return max(0, math.ceil((time - self._tolerance) * self._exact_fps))

    def _shown(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Each decoded frame and the time when the next one replaces it or the video ends."""
        with _open(self.path) as (container, stream):
            last: av.VideoFrame | None = None
            end = Fraction(0)
            interval = 1 / _rate(stream)
            for time, frame in _decode(self.path, container, stream):
                if last is not None:
                    yield last, time
                last, end = frame, time + (_seconds(frame.duration, frame.time_base) or interval)
            declared = self._exact_duration or end
            if last is None or end < declared - MISSING * interval:
                raise _cut_off(self.path, end)
            yield last, max(end, declared)

    def _picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture: Any = frame.reformat(self.size, self.size, "rgb24", interpolation=FILTER).to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


def open_video(path: Path | str, fps: float | None, size: int) -> VideoReader:
    """Open a video file of any kind that FFmpeg knows.

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
    with _open(path) as (container, stream):
        _, first = next(_decode(path, container, stream), (None, None))
        if first is None:
            raise UserError(f"{path} shows no picture; give another video")
        exact_fps = _rate(stream) if fps is None else Fraction(fps)
        duration = _duration(container, stream, _seconds(first.pts, first.time_base) or Fraction(0))
        tolerance = min(ROUNDING, (stream.time_base or ROUNDING) / 2)
        return VideoReader(path, exact_fps, size, duration, tolerance)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its first moving-picture stream."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a video file")
    if not path.is_file():
        raise UserError(f"there is no video file {path}; check the name")
    try:
        # `file:` and the whitelist keep names with a colon, and playlists, from reaching for the network.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except FFmpegError as error:
        raise UserError(_why_unreadable(path, error)) from error
    with container:
        name = container.format.name
        if name in STILL_FORMATS or name.endswith("_pipe"):
            raise UserError(f"{path} is not a video (FFmpeg takes it for {name}); give a video file")
        covers = Disposition.attached_pic | Disposition.still_image
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise UserError(f"{path} has no video in it, only sound or other data; give a video file")
        if streams[0].codec_context is None:
            raise UserError(f"{path} has video of a kind that cannot be decoded; convert it to H.264")
        yield container, streams[0]


def _why_unreadable(path: Path, error: FFmpegError) -> str:
    if isinstance(error, PermissionError):
        return f"{path} cannot be read: {error.strerror}"
    try:
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
    except OSError as reading:
        return f"{path} cannot be read: {reading.strerror}"
    if is_mp4:
        return f"{path} is cut off or damaged, its index (moov) cannot be read; get the whole file"
    return f"{path} is not a video; give a file that FFmpeg can read, such as .mp4"


def _decode(
    path: Path, container: InputContainer, stream: VideoStream
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Each frame and its time in seconds after the first one, never falling."""
    first: Fraction | None = None
    time = Fraction(0)
    interval = 1 / _rate(stream)
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                stamp = _seconds(frame.pts, frame.time_base)
                if first is None:
                    first = stamp or Fraction(0)
                elif stamp is None:
                    time += interval
                else:
                    time = max(time, stamp - first)
                if packet.is_corrupt or frame.is_corrupt:
                    raise _cut_off(path, time)
                yield time, frame
    except FFmpegError as error:
        raise _cut_off(path, time) from error


def _cut_off(path: Path, time: Fraction) -> UserError:
    return UserError(f"{path} is cut off or damaged after {float(time):.2f} seconds; get the whole file")


def _seconds(ticks: int | None, time_base: Fraction | None) -> Fraction | None:
    return None if ticks is None or time_base is None else ticks * time_base


def _rate(stream: VideoStream) -> Fraction:
    """Average frames per second, 25 (FFmpeg's default) if the file does not say."""
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _duration(container: InputContainer, stream: VideoStream, first: Fraction) -> Fraction | None:
    """Seconds from the first frame (at `first`) to the end of the video, or None if nothing tells.

    The longer of what the file declares and what its last packets say: a file cut off has only the former,
    and the former is too short in MP4 files of variable frame rate, where it counts decoding times.
    """
    declared = _declared_duration(container, stream)
    packed = _end_of_packets(container, stream)
    if packed is None:
        return declared
    return max(declared or Fraction(0), packed - first)


def _declared_duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    whole = _seconds(container.duration, Fraction(1, av.time_base))
    own = _seconds(stream.duration, stream.time_base)
    if "matroska" in container.format.name:
        # Matroska's durations are ends, counted from time 0.
        start = _seconds(stream.start_time, stream.time_base) or Fraction(0)
        tagged = _tag_seconds(stream.metadata.get("DURATION", ""))
        own = None if tagged is None else tagged - start
        whole = None if whole is None else whole - start
    if own is None:
        # The whole file's duration is the video's only if nothing else can be longer.
        return whole if len(container.streams) == 1 else None
    # An MP4 edit list shortens what is shown, which only the whole file's duration tells.
    return min(own, whole) if whole else own


def _end_of_packets(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """When the last packet's picture ends, found from the last key frame on; None if that can't be read."""
    if container.duration is None or not stream.time_base:
        return None
    last_moment = (container.start_time or 0) + container.duration
    ends = []
    try:
        container.seek(last_moment)
        for packet in container.demux(stream):
            if packet.pts is not None and not packet.is_discard:
                ends.append((packet.pts + (packet.duration or 0)) * stream.time_base)
    except FFmpegError:
        return None
    return max(ends, default=None)


def _tag_seconds(tag: str) -> Fraction | None:
    """Seconds of Matroska's DURATION tag, `HH:MM:SS.fraction`, or None if it is none."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", tag.strip("\0 "))
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
