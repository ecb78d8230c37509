"""The monitor of AXI4 ports: it lets good traffic pass and names what is wrong with bad."""

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from vrex.tb.lib.axi_monitor import PAGE, AxiMonitor
from vrex.tb.lib.streams import StreamError

WIDTH = 8
BURST = {"id": 1, "addr": PAGE, "len": 1, "size": 3, "burst": 1, "cache": 3, "prot": 2}
READY: dict[str, bool] = dict.fromkeys(("ar", "r", "aw", "w", "b"), True)


def beat(last: int, key: int = 1) -> dict[str, int]:
    return {"id": key, "data": 7, "resp": 0, "last": last}


def word(last: int) -> dict[str, int]:
    return {"data": 7, "strb": 255, "last": last}


def play(*cycles: Mapping[str, Any], stalled: Mapping[int, str] | None = None) -> AxiMonitor:
    """Shows some channels in each cycle, all of them taken but for one in the cycles of `stalled`."""
    monitor = AxiMonitor(WIDTH)
    for number, shown in enumerate(cycles):
        ready = READY | dict.fromkeys([name for at, name in (stalled or {}).items() if at == number], False)
        monitor.end({name: shown.get(name) for name in READY}, ready)
    return monitor


GOOD = {
    "read": [{"ar": BURST}, {}, {"r": beat(0)}, {"r": beat(1)}],
    "reads that mix": [
        {"ar": BURST},
        {"ar": BURST | {"id": 2}},
        {"r": beat(0, 2)},
        {"r": beat(0)},
        {"r": beat(1, 2)},
        {"r": beat(1)},
    ],
    "write": [{"aw": BURST}, {"w": word(0)}, {"w": word(1)}, {"b": {"id": 1, "resp": 0}}],
    "write with its address": [{"aw": BURST, "w": word(0)}, {"w": word(1)}, {"b": {"id": 1, "resp": 0}}],
    "write before its address": [{"w": word(0)}, {"w": word(1)}, {"aw": BURST}, {"b": {"id": 1, "resp": 2}}],
    "last burst of a page": [{"ar": BURST | {"addr": 2 * PAGE - 16}}, {"r": beat(0)}, {"r": beat(1)}],
}


@pytest.mark.parametrize("case", GOOD)
def test_good_traffic_passes(case: str) -> None:
    assert play(*GOOD[case]).idle
    assert not play(*GOOD[case][:-1]).idle


BAD: list[tuple[str, list[dict[str, Any]]]] = [
    ("ar: a burst of 2 beats at 0x1000 breaks: size", [{"ar": BURST | {"size": 2}}]),
    ("aw: a burst of 2 beats at 0x1000 breaks: type", [{"aw": BURST | {"burst": 0}}]),
    ("aw: a burst of 2 beats at 0x1ff8 breaks: 4 KiB edge", [{"aw": BURST | {"addr": 2 * PAGE - 8}}]),
    ("a beat of r came that nobody asked for, with id 2", [{"ar": BURST}, {"r": beat(0, 2)}]),
    ("a beat of r came that nobody asked for, with id 1", [{"ar": BURST, "r": beat(0)}]),
    ("rlast is 1 with 2 beats to come", [{"ar": BURST}, {"r": beat(1)}]),
    ("rlast is 0 with 1 beats to come", [{"ar": BURST}, {"r": beat(0)}, {"r": beat(0)}]),
    ("wlast is 1 on beat 1 of 2", [{"aw": BURST}, {"w": word(1)}]),
    ("wlast is 0 on beat 2 of 2", [{"aw": BURST}, {"w": word(0)}, {"w": word(0)}]),
    ("a response came that nobody waits for, with id 1", [{"aw": BURST}, {"b": {"id": 1, "resp": 0}}]),
    ("a response came that nobody waits for, with id 2", [*GOOD["write"][:-1], {"b": {"id": 2, "resp": 0}}]),
    ("a response came that nobody waits for, with id 1", [*GOOD["write"], {"b": {"id": 1, "resp": 0}}]),
]


@pytest.mark.parametrize(("message", "cycles"), BAD)
def test_bad_traffic_is_named(message: str, cycles: list[dict[str, Any]]) -> None:
    with pytest.raises(StreamError) as caught:
        play(*cycles)
    assert str(caught.value) == f"m_axi: {message}"
    play(*cycles[:-1])


def test_a_burst_longer_than_the_port_allows() -> None:
    monitor = AxiMonitor(WIDTH, longest=4, name="s_axi")
    with pytest.raises(StreamError, match="s_axi: ar: a burst of 5 beats at 0x1000 breaks: length"):
        monitor.end({"ar": BURST | {"len": 4}}, READY)


def test_data_far_ahead_of_their_address() -> None:
    monitor = AxiMonitor(WIDTH, longest=4)
    for _ in range(4):
        monitor.end({"w": word(0)}, READY)
    with pytest.raises(StreamError, match="more than a burst of data came before its address"):
        monitor.end({"w": word(0)}, READY)


def test_data_before_their_address_shows() -> None:
    stalled = READY | {"aw": False}
    for early in (True, False):
        monitor = AxiMonitor(WIDTH, early=early)
        monitor.end({"aw": BURST, "w": word(0)}, stalled)
        monitor.end({"aw": BURST, "w": word(1)}, stalled)
        monitor.end({"aw": BURST}, READY)
        if early:
            monitor.end({"w": word(0)}, READY)
            continue
        with pytest.raises(StreamError, match="m_axi: a beat of w came before its address showed"):
            monitor.end({"w": word(0)}, READY)


@pytest.mark.parametrize("name", READY)
def test_what_is_stalled_must_stay(name: str) -> None:
    shown = {"ar": BURST, "aw": BURST, "w": word(0), "r": beat(0), "b": {"id": 1, "resp": 0}}
    before = {"r": [{"ar": BURST}], "b": GOOD["write"][:-1]}.get(name, [])
    first = {name: shown[name]}
    stalled = {len(before): name}
    play(*before, first, first, stalled=stalled)
    with pytest.raises(StreamError, match=f"{name}valid was withdrawn before {name}ready"):
        play(*before, first, {}, stalled=stalled)
    field = Random(name).choice(list(shown[name]))
    with pytest.raises(StreamError, match=f"the payload of {name} changed while it was stalled"):
        play(*before, first, {name: shown[name] | {field: shown[name][field] ^ 1}}, stalled=stalled)


def test_reset_forgets_everything() -> None:
    monitor = play({"ar": BURST, "aw": BURST, "w": word(0)}, {"ar": BURST}, stalled={1: "ar"})
    assert not monitor.idle
    monitor.reset()
    assert monitor.idle
    monitor.end({"ar": None}, READY)
