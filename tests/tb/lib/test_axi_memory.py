"""The AXI4 memory of the testbenches against a master in Python: it serves good ones and catches bad ones."""

from collections import deque
from random import Random
from typing import Any

import pytest

from vrex.model.config import Config, KvmuConfig
from vrex.tb.lib.axi_memory import PAGE, AxiMemory, Window, bursts
from vrex.tb.lib.streams import PROFILES, StreamError

CONFIG = Config(name="test", bus_bits=64, kvmu=KvmuConfig(outstanding=4, burst_beats=4))
WIDTH = CONFIG.bus_bytes
WINDOW = Window(1, 4)


def address_word(**changes: int) -> dict[str, int]:
    """A good burst, but for the changes."""
    good = {"addr": PAGE, "len": 3, "size": 3, "burst": 1, "id": 0, "cache": 3, "prot": 2}
    return good | changes


class Master:
    """Sends what it is given, word by word on each channel, and always takes answers."""

    def __init__(self, memory: AxiMemory) -> None:
        self.memory = memory
        self.queues: dict[str, deque[dict[str, int]]] = {name: deque() for name in ("ar", "aw", "w")}
        self.wires = dict.fromkeys(("arready", "awready", "wready", "rvalid", "bvalid"), 0)
        self.taken: dict[str, list[dict[str, int]]] = {"r": [], "b": []}

    def cycle(self, shown: dict[str, Any] | None = None) -> None:
        """One cycle; `shown` overrides what the channels show."""
        self.wires |= self.memory.drive()
        values = {name: queue[0] if queue else None for name, queue in self.queues.items()} | (shown or {})
        for name in ("ar", "aw", "w"):
            if values[name] is not None and self.wires[f"{name}ready"] and self.queues[name]:
                self.queues[name].popleft()
        for name, fields in (("r", ("data", "id", "resp", "last")), ("b", ("id", "resp"))):
            if self.wires[f"{name}valid"]:
                self.taken[name].append({field: self.wires[name + field] for field in fields})
        self.memory.end(values, {"r": True, "b": True})

    def run(self, cycles: int = 600) -> None:
        for _ in range(cycles):
            self.cycle()


def make(profile: str = "none", seed: int = 1, **options: Any) -> Master:
    memory = AxiMemory(CONFIG, Random(seed), (WINDOW,), **options)
    memory.stall(PROFILES[profile])
    return Master(memory)


def write_words(address: int, data: bytes) -> list[dict[str, int]]:
    """Beats of W for one burst."""
    words = [int.from_bytes(data[i : i + WIDTH], "little") for i in range(0, len(data), WIDTH)]
    return [{"data": word, "strb": 0xFF, "last": i == len(words) - 1} for i, word in enumerate(words)]


@pytest.mark.parametrize("profile", ["none", "light", "heavy"])
@pytest.mark.parametrize("seed", [1, 2])
def test_reads_come_in_order_of_each_id_and_are_right(profile: str, seed: int) -> None:
    master = make(profile, seed)
    asked: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for number in range(9):
        at = PAGE + 64 * number
        asked[number % 3] += [at + i * WIDTH for i in range(4)]
        master.queues["ar"].append(address_word(addr=at, id=number % 3))
    master.run(2000)
    assert master.memory.idle
    for i, addresses in asked.items():
        got = [word["data"] for word in master.taken["r"] if word["id"] == i]
        assert got == [int.from_bytes(master.memory.read(at, WIDTH), "little") for at in addresses]
    assert master.memory.counts.read_beats == 36
    assert {word["resp"] for word in master.taken["r"]} <= {0, 1}


def test_answers_of_different_ids_overtake_each_other() -> None:
    master = make(latency=(1, 60))
    for number in range(12):
        master.queues["ar"].append(address_word(id=number % 3))
    master.run()
    assert master.memory.counts.overtaken > 0


def test_writes_change_the_strobed_bytes_alone() -> None:
    master = make("light")
    before = master.memory.read(PAGE, 64)
    master.queues["aw"].append(address_word(len=1))
    first, last = write_words(PAGE, bytes(range(16)))
    master.queues["w"].extend([first | {"strb": 0b11110000}, last | {"strb": 0b1}])
    master.run()
    assert master.taken["b"] == [{"id": 0, "resp": 0}]
    changed = bytes([*before[:4], 4, 5, 6, 7, 8, *before[9:]])
    assert master.memory.read(PAGE, 64) == changed


def test_bad_beats_fail() -> None:
    master = make()
    master.memory.bad_beats = {PAGE // WIDTH + 2}
    master.queues["ar"].append(address_word())
    master.queues["aw"].append(address_word())
    master.queues["w"].extend(write_words(PAGE, bytes(32)))
    master.run()
    assert [word["resp"] >= 2 for word in master.taken["r"]] == [False, False, True, False]
    assert [word["resp"] >= 2 for word in master.taken["b"]] == [True]


def test_a_silent_channel_answers_when_it_is_told() -> None:
    master = make()
    master.memory.allow = {"r": 2}
    master.queues["ar"].append(address_word())
    master.run()
    assert len(master.taken["r"]) == 2
    master.memory.allow.clear()
    master.run()
    assert len(master.taken["r"]) == 4


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"size": 2}, "size"),
        ({"burst": 0}, "type"),
        ({"id": 4}, "id"),
        ({"len": 4}, "length"),
        ({"addr": PAGE + 4}, "alignment"),
        ({"addr": 2 * PAGE - 16}, "4 KiB edge"),
        ({"addr": 0}, "window"),
        ({"addr": 5 * PAGE}, "window"),
        ({"prot": 0}, "attributes"),
    ],
)
@pytest.mark.parametrize("channel", ["ar", "aw"])
def test_a_bad_burst_is_caught(channel: str, changes: dict[str, int], rule: str) -> None:
    master = make()
    master.queues[channel].append(address_word(**changes))
    with pytest.raises(StreamError, match=rf"{channel}: a burst of \d beats at .* breaks: {rule}"):
        master.run()


def test_too_many_bursts_are_caught() -> None:
    master = make(latency=(90, 90))
    master.queues["ar"].extend(address_word() for _ in range(5))
    with pytest.raises(StreamError, match="ar: 5 bursts of id 0 are in flight"):
        master.run()


@pytest.mark.parametrize("last", [0, 2])
def test_a_misplaced_wlast_is_caught(last: int) -> None:
    master = make()
    master.queues["aw"].append(address_word())
    words = write_words(PAGE, bytes(32))
    master.queues["w"].extend(word | {"last": int(i == last)} for i, word in enumerate(words))
    with pytest.raises(StreamError, match=r"wlast is \w+ on beat"):
        master.run()


def test_data_ahead_of_their_address_are_caught() -> None:
    master = make()
    master.queues["w"].extend(write_words(PAGE, bytes(48)))
    with pytest.raises(StreamError, match="a beat of w came before its address showed"):
        master.run()


@pytest.mark.parametrize(
    ("then", "message"),
    [(None, "arvalid was withdrawn"), (address_word(addr=2 * PAGE), "the payload of ar changed")],
)
def test_an_unstable_channel_is_caught(then: dict[str, int] | None, message: str) -> None:
    master = make()
    master.memory.allow = {"ar": 0}
    master.cycle({"ar": address_word()})
    with pytest.raises(StreamError, match=message):
        master.cycle({"ar": then})


def test_reset_forgets_what_is_under_way_and_keeps_the_bytes() -> None:
    master = make(latency=(50, 50))
    master.memory.write(PAGE, b"kept")
    master.queues["ar"].append(address_word())
    master.run(10)
    assert not master.memory.idle
    master.memory.reset()
    assert master.memory.idle
    assert master.memory.read(PAGE, 4) == b"kept"


@pytest.mark.parametrize("size", [1, 7, 8, 9, 31, 32, 33, 4096, 5000])
@pytest.mark.parametrize("offset", [0, 1, 8, 31, 4088, 4095])
def test_bursts_cover_a_range_and_cross_no_page(offset: int, size: int) -> None:
    cut = list(bursts(CONFIG, PAGE + offset, size))
    assert cut[0][0] == (PAGE + offset) // WIDTH * WIDTH
    end = cut[0][0]
    for at, beats in cut:
        assert at == end
        assert 1 <= beats <= CONFIG.kvmu.burst_beats
        end = at + beats * WIDTH
        assert at // PAGE == (end - 1) // PAGE
    assert end - WIDTH < PAGE + offset + size <= end
