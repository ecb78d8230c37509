"""Video files as containers: which are opened, their packets as far as they go, and what is cut off."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from vrex.errors import UserError

STILL_FORMATS = ("image2", "tty")
"""What FFmpeg also takes for a video: numbered pictures and text."""
# FFmpeg's AVFMT_NOTIMESTAMPS and AVFMT_TS_DISCONT.
NO_TIMESTAMPS, TS_DISCONT = 0x80, 0x200
MOST_FAILURES = 100
"""So many refusals in a row end the reading: behind a cut, every further sample of an index is one."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its first moving-picture stream.

    Raises:
        UserError: there is no such file, or it has no video that can be decoded.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a video file")
    if not path.is_file():
        if path.exists():
            raise UserError(f"{path} is a pipe or a device, and videos are read more than once; give a file")
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


def demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
    """The stream's packets up to and with the empty one that flushes the decoder; None where reading fails.

    Behind a failure the reading goes on, as long as that gives anything.
    """
    failures = 0
    while failures < MOST_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except MemoryError:
            raise
        except FFmpegError:
            failures += 1
            yield None
    flush = Packet()
    flush.stream = stream
    yield flush


def is_stamped(container: InputContainer) -> bool:
    """Whether the container keeps time; a raw stream does not, and FFmpeg then counts frames of 1/25 s."""
    return not container.format.flags & NO_TIMESTAMPS


def has_jumps(container: InputContainer) -> bool:
    """Whether time stamps of this kind of container may begin anew in the middle, as in MPEG-TS."""
    return bool(container.format.flags & TS_DISCONT)


def rate(container: InputContainer, stream: VideoStream) -> Fraction:
    """Average frames per second, 25 (FFmpeg's default) if nothing tells."""
    average, guessed = stream.average_rate, stream.guessed_rate
    if average and guessed:
        # The "average" of a raw stream is FFmpeg's 25, that of some AVI files the rate of their clock.
        return min(average, guessed) if is_stamped(container) else guessed
    return average or guessed or Fraction(25)


def seconds(ticks: int | None, time_base: Fraction | None) -> Fraction | None:
    """A time stamp in seconds."""
    return None if ticks is None or time_base is None else ticks * time_base


def is_whole(path: Path, kind: str) -> bool | None:
    """Whether a file holds all bytes that its outermost structure announces; None if that does not tell.

    Args:
        path: the file.
        kind: FFmpeg's name of the container.
    """
    checks = {
        "mov": _boxes_are_whole,
        "matroska": _segment_is_whole,
        "avi": _riff_is_whole,
        "flv": _tags_are_whole,
        "ogg": _pages_are_whole,
    }
    check = checks.get(kind.split(",")[0])
    if check is None:
        return None
    try:
        with path.open("rb") as file:
            return check(file, path.stat().st_size)
    except (OSError, struct.error, IndexError):
        return None


def _boxes_are_whole(file: BinaryIO, size: int) -> bool | None:
    """ISO 14496-12: boxes behind each other, each led by its length and type."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        (length,) = struct.unpack(">I4x", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        if length == 0:  # up to the end of the file
            return True
        if length < 8:
            return None
        at += length
    return at <= size


def _segment_is_whole(file: BinaryIO, size: int) -> bool | None:
    """Matroska (RFC 9559): an EBML header, then the segment, whose length may be left open."""
    at = 0
    for expected in (0x1A45DFA3, 0x18538067):
        file.seek(at)
        head = file.read(12)
        if int.from_bytes(head[:4]) != expected:
            return None
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width]) - (1 << 7 * width)
        if length == (1 << 7 * width) - 1:
            return None
        at += 4 + width + length
    return at <= size


def _riff_is_whole(file: BinaryIO, size: int) -> bool | None:
    """AVI: a RIFF chunk, whose length writers to a pipe leave 0."""
    _, length = struct.unpack("<4sI", file.read(8))
    return None if length == 0 else 8 + length <= size


def _tags_are_whole(file: BinaryIO, size: int) -> bool | None:
    """FLV: behind each tag stands its length, the 11 bytes of its head included."""
    file.seek(size - 4)
    (length,) = struct.unpack(">I", file.read(4))
    if not 11 <= length <= size - 4:
        return False
    file.seek(size - 4 - length)
    return int.from_bytes(file.read(4)[1:]) == length - 11


def _pages_are_whole(file: BinaryIO, size: int) -> bool | None:
    """Ogg (RFC 3533): the last page of a stream is marked; a page is at most 65,307 bytes long."""
    file.seek(max(0, size - 65_307))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return False
    is_last, segments = bool(tail[at + 5] & 4), tail[at + 26]
    length = 27 + segments + sum(tail[at + 27 : at + 27 + segments])
    return is_last and at + length <= len(tail)
