"""When each packet of a video is shown, whatever its time stamps begin with and wherever they jump.

Other players read files whose stamps begin anew (two recordings joined), leave out a stretch or hold nonsense
at one place; so all stamps are looked at before the first frame is decoded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
from av import logging
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vrex.sw.videollm.container import demuxed, has_jumps, is_stamped, is_whole, rate, seconds

BACKWARDS = Fraction(1, 10)
"""Decoding times that fall by more seconds begin anew (FFmpeg's own limit)."""
LEAP = 10
"""Where stamps may begin anew, so do those that leap by more seconds (FFmpeg's `dts_delta_threshold`)."""
MISSING = 2
"""A declared end that is later by no more than so many frame intervals is that of the last frame, rounded."""
LONGEST_HOLD = 3600
"""Seconds for which a declared duration, or a last packet, may let a frame stand: more is an error."""
STRAYS = 3
"""At most so many stamps in a row are taken for nonsense between good ones."""
REORDERED = 16
"""The packet that is shown first is among so many: H.264 and H.265 hold at most 16 frames back."""


@dataclass(frozen=True)
class Timeline:
    """The times of a video's packets; packets are counted from 0, without the empty one at the end.

    Attributes:
        starts: of each piece with stamps of its own, (its first packet, ticks to add to its stamps).
        strays: packets whose stamps make no sense.
        failures: packets before which something could not be read; the number of packets is the end.
        begin: the earliest stamp, in seconds; None if stamps do not tell.
        end: when the last frame ends, in seconds on this time line; None if stamps do not tell.
        whole: whether nothing is cut off at the end.
        stamped: whether stamps count at all.
        by_decoding: whether they are times of decoding, all that AVI holds; what FFmpeg makes of them for
            showing is wrong where frames are shown in another order.
    """

    starts: tuple[tuple[int, int], ...]
    strays: frozenset[int]
    failures: frozenset[int]
    begin: Fraction | None
    end: Fraction | None
    whole: bool
    stamped: bool
    by_decoding: bool = False

    def packets(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[Packet | None, bool]]:
        """Packets with stamps of this time line, None where reading fails; whether stamps break off there."""
        offsets = dict(self.starts)
        number = added = 0
        for packet in demuxed(container, stream):
            broken = packet is None or number in self.failures or number in self.strays
            if packet is not None and packet.size:
                broken |= number > 0 and number in offsets
                added = offsets.get(number, added)
                stray = number in self.strays
                packet.pts, packet.dts = (
                    None if stray or ticks is None else ticks + added for ticks in (packet.pts, packet.dts)
                )
                number += 1
            yield packet, broken


@dataclass(frozen=True)
class _Stamp:
    """A packet's stamps in ticks; `length` is 0 where nothing tells; `shown` is False for edited-out ones."""

    pts: int | None
    dts: int | None
    length: int
    shown: bool

    @property
    def start(self) -> int | None:
        return self.dts if self.pts is None else self.pts


def read_timeline(path: Path, container: InputContainer, stream: VideoStream) -> Timeline:
    """Reads all packets of a stream, and decodes none.

    Args:
        path: the file.
        container: the file, opened for this; it is read to its end.
        stream: the stream.
    """
    stamps: list[_Stamp] = []
    failures: set[int] = set()
    intact = True
    # In an AVI file that counts time in fractions of a frame, packets last one tick.
    is_avi = container.format.name == "avi"
    for packet, complaint in _with_complaints(demuxed(container, stream)):
        if complaint:
            failures.add(len(stamps))
        if packet is None:
            intact = False
        elif packet.size:
            length = 0 if is_avi else packet.duration or 0
            pts = None if is_avi else packet.pts
            stamps.append(_Stamp(pts, packet.dts, length, not packet.is_discard))
            intact = not packet.is_corrupt
    told = is_whole(path, container.format.name)
    whole = intact if told is None else told
    base = stream.time_base
    lost = frozenset(failures)
    if not is_stamped(container) or not base:
        return Timeline((), frozenset(), lost, None, None, whole, False)
    strays = _strays(stamps, base)
    interval = round(1 / rate(container, stream) / base)
    leap = LEAP + interval * base if has_jumps(container) else None
    joined = _joints(stamps, strays, base, leap)
    shown = {
        number: start
        for number, stamp in enumerate(stamps)
        if number not in strays and stamp.shown and (start := stamp.start) is not None
    }
    starts, end = _laid_out(shown, stamps, joined, interval)
    last, declared = seconds(end, base), _declared(container, stream)
    if whole and declared is not None:
        slack = MISSING * interval * base
        if last is None or last + slack < declared <= last + LONGEST_HOLD:
            last = declared
    first = min(islice(shown.values(), REORDERED), default=None)
    return Timeline(starts, strays, lost, seconds(first, base), last, whole, True, is_avi)


def _with_complaints(packets: Iterator[Packet | None]) -> Iterator[tuple[Packet | None, bool]]:
    """Packets, and whether FFmpeg reported an error on the way to each.

    Some demultiplexers look for the next good place without a word to the caller, only to the log.
    """
    level, skips = logging.get_level(), logging.get_skip_repeated()
    logging.set_level(logging.ERROR)
    # A file may have the same fault as the one read before it.
    logging.set_skip_repeated(False)
    try:
        with logging.Capture() as told:
            for packet in packets:
                yield packet, bool(told)
                told.clear()
    finally:
        logging.set_level(level)
        logging.set_skip_repeated(skips)


def _strays(stamps: Sequence[_Stamp], base: Fraction) -> frozenset[int]:
    """Packets whose decoding times lie outside of those around them, which agree."""
    known = [(number, stamp.dts) for number, stamp in enumerate(stamps) if stamp.dts is not None]
    slack, leap = round(BACKWARDS / base), round(LEAP / base)
    found: set[int] = set()
    at = 0
    while at + 1 < len(known):
        before = known[at][1]
        run = 0
        for length in range(1, min(STRAYS, len(known) - at - 2) + 1):
            after = known[at + 1 + length][1]
            between = [dts for _, dts in known[at + 1 : at + 1 + length]]
            outside = all(not before - slack <= dts <= after + slack for dts in between)
            if outside and before <= after <= before + leap:
                run = length
                break
        found.update(number for number, _ in known[at + 1 : at + 1 + run])
        at += 1 + run
    if len(known) > 1 and known[-1][1] - known[-2][1] > LONGEST_HOLD / base:
        found.add(known[-1][0])
    return frozenset(found)


def _joints(
    stamps: Sequence[_Stamp], strays: frozenset[int], base: Fraction, leap: Fraction | None
) -> list[int]:
    """The first packet of each piece but the first one; `leap` is the shortest one forwards, in seconds."""
    good = [number for number, stamp in enumerate(stamps) if stamp.dts is not None and number not in strays]
    joined = []
    for before, here in pairwise(good):
        step = seconds((stamps[here].dts or 0) - (stamps[before].dts or 0), base) or Fraction(0)
        if step < -BACKWARDS or (leap is not None and step > leap):
            # Some containers give the first packets behind a joint no decoding time.
            joined.append(before + 1 if all(n not in strays for n in range(before + 1, here)) else here)
    return joined


def _laid_out(
    shown: dict[int, int], stamps: Sequence[_Stamp], joined: list[int], interval: int
) -> tuple[tuple[tuple[int, int], ...], int | None]:
    """What is added to each piece so that it begins where the one before ends; and the end, in ticks.

    `shown` holds, by number, when the packets with good stamps are shown.
    """
    starts: list[tuple[int, int]] = []
    end: int | None = None
    for first, behind in pairwise([0, *joined, len(stamps)]):
        piece = [number for number in range(first, behind) if number in shown]
        if piece:
            added = 0 if end is None else end - min(shown[number] for number in piece[:REORDERED])
            latest = max(shown[number] + (stamps[number].length or interval) for number in piece) + added
            starts.append((first, added))
            end = latest if end is None else max(end, latest)
    return tuple(starts), end


def _declared(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """When the video ends by what the file declares, in seconds of its own stamps; None if nothing tells.

    Not asked of MP4 and AVI, whose packets tell it exactly, and of MPEG-TS, which does not declare any.
    """
    name = container.format.name
    if name.startswith("mov") or name == "avi" or has_jumps(container):
        return None
    if "matroska" in name:
        tagged = _tag_seconds(stream.metadata.get("DURATION", ""))
        if tagged is not None:
            return tagged
    own = seconds(stream.duration, stream.time_base)
    if own is not None:
        return own + (seconds(stream.start_time, stream.time_base) or 0)
    # The whole file's duration is the video's only if nothing else can be longer. It counts from time 0.
    return seconds(container.duration, Fraction(1, av.time_base)) if len(container.streams) == 1 else None


def _tag_seconds(tag: str) -> Fraction | None:
    """Seconds of Matroska's DURATION tag, `HH:MM:SS.fraction`, or None if it is none."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", tag.strip("\0 "))
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
