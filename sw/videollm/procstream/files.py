"""ProcStream videos as files: an H.264 .mp4 and beside it a JSON sidecar of questions and answers."""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from vrex.errors import UserError
from vrex.files import is_plain, write_file
from vrex.sw.videollm.procstream.levels import EASY, LEVELS
from vrex.sw.videollm.procstream.procvideo import ProcVideo
from vrex.sw.videollm.procstream.script import ALL_KINDS, Question
from vrex.text import from_json

FORMAT = "vrex-procstream-1"
SCALE = 4
"""Every pixel is written as 4x4, so that it keeps its colour although 4:2:0 video, the only kind every player
opens, has one colour for 2x2 pixels."""
# A constant quantiser, because the constant rate factor coarsens the colours of fast videos.
ENCODER = {"preset": "medium", "qp": "18"}
"""Read back by `open_video(..., size=64)`, values differ by 2.4 of 255 (rms), a quarter of the noise."""
SLOWEST, FASTEST = 0.01, 240.0
"""Frame rates that can be written."""
LARGEST = 1e12
"""No number of frames, rate or time in a sidecar is larger."""


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file beside a ProcStream .mp4 holds; the fields are those of ProcVideo.

    `frames` is the number of frames.
    """

    seed: int
    frames: int
    fps: float
    questions: list[Question]
    narration: list[tuple[float, str]]
    level: str = EASY.name


def sidecar_path(video: Path | str) -> Path:
    """Where the sidecar of a video file stands: the same name, ending in `.json`."""
    return Path(video).with_suffix(".json")


def write_mp4(video: ProcVideo, path: Path | str) -> None:
    """Write `video` to `path` (256x256, H.264, yuv420p) and its sidecar to `sidecar_path(path)`.

    Both files appear whole or neither does (see `vrex.files.write_file`). The bytes depend on the video and
    the pinned PyAV alone.

    Raises UserError if the name does not end in .mp4, a frame rate outside 0.01 to 240, or a place that
    cannot be written.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise UserError(f"the video file {path} must end in .mp4; choose another name")
    if not SLOWEST <= video.fps <= FASTEST:
        raise UserError(
            f"{path} cannot be written with {video.fps:g} frames a second; choose {SLOWEST:g} to {FASTEST:g}"
        )
    try:
        with TemporaryDirectory(prefix=".vrex-", dir=path.parent) as folder:
            encoded = Path(folder, "video.mp4")
            _encode(video, encoded)
            content = encoded.read_bytes()
        _publish(path, content, _sidecar_json(video).encode())
    except (OSError, FFmpegError) as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _encode(video: ProcVideo, path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        rate = Fraction(video.fps).limit_denominator(100_000)
        stream = container.add_stream("libx264", rate=rate, options=ENCODER)
        stream.width = stream.height = video.frames.shape[1] * SCALE
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # The encoder's decisions depend on its number of threads.
        context.thread_count = 1
        # Named, because a player guesses another matrix for other picture sizes.
        context.color_range = ColorRange.MPEG
        context.colorspace = Colorspace.SMPTE170M
        context.color_primaries = ColorPrimaries.SMPTE170M
        context.color_trc = ColorTrc.SMPTE170M
        for number, picture in enumerate(video.frames):
            big = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
            frame = av.VideoFrame.from_ndarray(big, format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation=Interpolation.AREA)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _publish(path: Path, video: bytes, sidecar: bytes) -> None:
    """Writes both; when the video can't be written, the sidecar is again what it was."""
    beside = sidecar_path(path)
    former = beside.read_bytes() if beside.is_file() else None
    write_file(beside, sidecar)
    try:
        write_file(path, video)
    except BaseException:
        if former is not None:
            write_file(beside, former)
        elif is_plain(beside):
            beside.resolve().unlink()
        raise


def _sidecar_json(video: ProcVideo) -> str:
    content = {
        "format": FORMAT,
        # Left out on the first level, whose sidecars are older than the others.
        **({} if video.level == EASY.name else {"level": video.level}),
        "seed": video.seed,
        "frames": len(video.frames),
        "fps": video.fps,
        "questions": [asdict(question) for question in video.questions],
        "narration": [{"time": time, "text": text} for time, text in video.narration],
    }
    return json.dumps(content, indent=2) + "\n"


def read_sidecar(path: Path | str) -> Sidecar:
    """Read and validate a sidecar written by `write_mp4`.

    Raises UserError if there is no such file, or it is not JSON, or a field is missing or makes no sense.
    """
    try:
        data = from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the sidecar {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"the sidecar {path} is not JSON; write it anew with vrex procstream") from error
    try:
        return _parse(data)
    except _MalformedError as error:
        raise UserError(
            f"{path} is not a sidecar of a ProcStream video ({error}); "
            "write it anew with vrex procstream or rename it"
        ) from error


class _MalformedError(Exception):
    """Says what is wrong with a sidecar."""


def _parse(data: Any) -> Sidecar:
    if _get(data, "format", str) != FORMAT:
        raise _MalformedError(f"its format is not {FORMAT}")
    seed, frames, fps = _get(data, "seed", int), _get(data, "frames", int), _number(data, "fps")
    if seed < 0 or not 1 <= frames <= LARGEST or fps <= 0:
        raise _MalformedError("seed, frames or fps is out of range")
    level = _get(data, "level", str) if "level" in data else EASY.name
    if level not in LEVELS:
        raise _MalformedError(f"there is no level {level!r}")
    asked, said = _get(data, "questions", list), _get(data, "narration", list)
    questions = [_parse_question(entry) for entry in asked]
    narration = [(_number(entry, "time"), _text(entry, "text")) for entry in said]
    for times in ([question.time for question in questions], [time for time, _ in narration]):
        if times != sorted(times) or not all(0 <= time < frames / fps for time in times):
            raise _MalformedError("its times are not ascending within the video")
    return Sidecar(seed, frames, fps, questions, narration, level)


def _parse_question(entry: Any) -> Question:
    kind = _text(entry, "kind")
    if kind not in ALL_KINDS:
        raise _MalformedError(f"there is no kind of question {kind!r}")
    return Question(_number(entry, "time"), kind, _text(entry, "text"), _text(entry, "answer"))


def _get(data: Any, key: str, *kinds: type) -> Any:
    """`data[key]`, which must be of one of `kinds` (True is no number)."""
    if not isinstance(data, dict) or key not in data:
        raise _MalformedError(f"{key} is missing")
    if type(data[key]) not in kinds:
        raise _MalformedError(f"{key} has the wrong type")
    return data[key]


def _number(data: Any, key: str) -> float:
    value = _get(data, key, int, float)
    if not abs(value) <= LARGEST:  # a NaN fails this too, and so do integers no float can hold
        raise _MalformedError(f"{key} is out of range")
    return float(value)


def _text(data: Any, key: str) -> str:
    text: str = _get(data, key, str)
    if not text.strip():
        raise _MalformedError(f"{key} is empty")
    return text
