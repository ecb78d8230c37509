"""Frames against references of their own: COBS by splitting at the zeros, CRC by binascii."""

import binascii
import contextlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.model.config import preset
from vrex.model.serial.capabilities import Capabilities, capabilities, digest
from vrex.model.serial.frames import (
    LONGEST,
    PAYLOAD_BYTES,
    VERSION,
    Frame,
    FrameError,
    Kind,
    Splitter,
    cobs_decode,
    cobs_encode,
    decode,
    encode,
    line_bytes,
)

DATA = st.one_of(
    st.binary(max_size=600),
    st.lists(st.sampled_from([b"\0", b"\1", bytes(range(1, 255)), bytes(range(1, 254))]), max_size=6).map(
        b"".join
    ),
)
BYTE = st.integers(0, 255)
FRAMES = st.builds(
    Frame,
    kind=BYTE,
    session=BYTE,
    sequence=BYTE,
    ack=BYTE,
    limit=BYTE,
    payload=st.binary(max_size=PAYLOAD_BYTES),
)


def cobs_reference(data: bytes) -> bytes:
    """COBS as its authors describe it: a zero is added, and runs before zeros are cut at 254 bytes."""
    encoded = b""
    runs = data.split(b"\0")
    for number, run in enumerate(runs):
        while len(run) >= 254:
            encoded += b"\xff" + run[:254]
            run = run[254:]
            if not run and number == len(runs) - 1:
                return encoded
        encoded += bytes([len(run) + 1]) + run
    return encoded


@given(DATA)
def test_cobs(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert encoded == cobs_reference(data)
    assert 0 not in encoded
    assert len(data) < len(encoded) <= len(data) + 1 + len(data) // 254
    assert cobs_decode(encoded) == data


@pytest.mark.parametrize("data", [b"\0", b"\3\1", b"\2\0", b"\xff" + bytes(range(1, 254))])
def test_what_is_no_cobs(data: bytes) -> None:
    with pytest.raises(FrameError):
        cobs_decode(data)


@given(FRAMES)
def test_a_frame_comes_back(frame: Frame) -> None:
    data = encode(frame)
    assert data.count(b"\0") == 1
    assert data.endswith(b"\0")
    assert len(data) <= line_bytes(len(frame.payload))
    assert decode(data[:-1]) == frame
    body = cobs_decode(data[:-1])
    fields = bytes([frame.kind, frame.session, frame.sequence, frame.ack, frame.limit])
    assert body[:-4] == fields + frame.payload
    assert int.from_bytes(body[-4:], "little") == binascii.crc32(fields + frame.payload)


@given(FRAMES, st.randoms(use_true_random=False))
def test_damage_is_seen(frame: Frame, rng: random.Random) -> None:
    data = bytearray(encode(frame)[:-1])
    at = rng.randrange(len(data))
    match rng.randrange(3):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            del data[at]
        case 2:
            data.insert(at, data[at])
    whole = []
    for part in Splitter().split(bytes(data) + b"\0"):
        with contextlib.suppress(FrameError):
            whole.append(decode(part))
    # A byte that is equal to its neighbour may be gone or doubled where it does not show.
    assert whole in ([], [frame])
    assert not whole or encode(frame)[:-1] == bytes(data)


def test_sizes_outside_a_frame() -> None:
    with pytest.raises(ValueError, match="a frame holds 256 bytes, not 257"):
        encode(Frame(Kind.PAYLOAD, 1, payload=bytes(257)))
    for size in (0, 8, LONGEST + 1):
        with pytest.raises(FrameError, match=f"not {size}"):
            decode(cobs_encode(bytes(size)) if size else b"")


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"")), max_size=8), st.data())
def test_splitter(parts: list[bytes], data: st.DataObject) -> None:
    line = b"".join(part + b"\0" for part in parts)
    splitter, found = Splitter(), []
    while line:
        size = data.draw(st.integers(1, len(line)))
        found += splitter.split(line[:size])
        line = line[size:]
    assert found == [part for part in parts if part]


def test_a_line_of_noise_fills_no_memory() -> None:
    splitter = Splitter()
    for _ in range(100):
        assert splitter.split(b"\1" * 1000) == []
    [part] = splitter.split(b"\0")
    assert len(part) <= 2 * LONGEST


def test_capabilities() -> None:
    tiny = capabilities(preset("tiny"), "kvpu", 16)
    assert Capabilities.unpack(tiny.pack() + b"more") == tiny
    assert (tiny.unit_name, tiny.bus_bytes, tiny.slots) == ("kvpu", 8, 16)
    with pytest.raises(FrameError, match="HELLO has 20 bytes, not 3"):
        Capabilities.unpack(bytes([VERSION]) + b"23")
    with pytest.raises(FrameError, match="HELLO has 20 bytes, not 0"):
        Capabilities.unpack(b"")
    dre = capabilities(preset("tiny"), "dre", 16, 1 << 25)
    assert Capabilities.unpack(dre.pack()).memory == 1 << 25
    # Version 1 knew of no memory.
    assert Capabilities.unpack(bytes([1]) + tiny.pack()[1:12]) == replace(tiny, version=1)
    assert Capabilities(9, 8, 16, 0).unit_name == "unit 9"


def test_the_digest_is_of_what_the_unit_is_made_of() -> None:
    edge, tiny = preset("edge"), preset("tiny")
    assert digest(edge, "kvpu") == digest(preset("server48"), "kvpu") != digest(tiny, "kvpu")
    assert digest(edge.with_heads(2, 64), "kvpu") == digest(edge, "kvpu")
    assert digest(edge.with_heads(2, 64), "dre") != digest(edge, "dre")
    assert digest(edge, "kvpu") != digest(edge, "dre")
