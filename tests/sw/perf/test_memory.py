"""DRAM, flash and PCIe against what their timing parameters allow by hand."""

import dataclasses
import re
from itertools import pairwise
from pathlib import Path

import pytest

from vrex.sw.perf.description.system import Link
from vrex.sw.perf.memory import dram, pcie, ssd, table, traces
from vrex.sw.perf.memory.parts import Dram, Flash, load_dram, load_flash

LINK = Link(generation=3, lanes=4, max_payload=256)
WIDE = Link(generation=5, lanes=16, max_payload=4096)


def plain(**fields: float) -> Dram:
    """A DRAM of one bank whose bursts take 10 ns and whose refresh is rare."""
    base = load_dram("ddr4-3200")
    values: dict[str, float] = {"bank_groups": 1, "banks_per_group": 1, "t_rfc": 0.001, "t_refi": 20_000.0}
    return dataclasses.replace(base, **(values | fields))  # type: ignore[arg-type]


def flash(**fields: float) -> Flash:
    return dataclasses.replace(load_flash("nvme-gen3"), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["lpddr5-6400", "hbm2e-3024", "ddr4-3200"])
def test_reading_in_sequence_is_bound_by_refresh(name: str) -> None:
    part = load_dram(name)
    most = 1 - part.t_rfc / part.t_refi
    found = dram.efficiency(part, 16, 0, dram.SEQUENTIAL)
    assert most - 0.02 < found <= most + 0.003


@pytest.mark.parametrize("name", ["lpddr5-6400", "hbm2e-3024", "ddr4-3200"])
def test_random_reads_are_no_faster_than_sequential_ones(name: str) -> None:
    part = load_dram(name)
    assert dram.efficiency(part, 16, 512, dram.RANDOM) < dram.efficiency(part, 16, 0, dram.SEQUENTIAL)


def test_one_bank_opens_a_row_each_row_cycle() -> None:
    part = plain(interleave_bytes=64, group_bytes=64)
    cycle = part.t_ras + part.t_rp
    assert dram.efficiency(part, 1, 64, dram.RANDOM) == pytest.approx(part.burst_ns / cycle, rel=0.02)


def test_four_activates_fit_into_their_window() -> None:
    part = plain(
        bank_groups=4, banks_per_group=16, t_faw=100.0, interleave_bytes=64, group_bytes=64, queue=128
    )
    assert dram.efficiency(part, 1, 64, dram.RANDOM) == pytest.approx(4 * part.burst_ns / 100, rel=0.02)


def test_one_bank_reads_a_row_at_its_group_s_pace_and_opens_the_next() -> None:
    part = plain()
    reads = part.row_bytes // part.burst_bytes
    row = (reads - 1) * part.t_ccd_l + part.t_rtp + part.t_rp + part.t_rcd
    assert dram.efficiency(part, 1, 0, dram.SEQUENTIAL) == pytest.approx(
        reads * part.burst_ns / row, rel=0.01
    )


def test_bandwidth_grows_with_channels() -> None:
    part = load_dram("lpddr5-6400")
    assert dram.bandwidth(part, 32) == pytest.approx(2 * dram.bandwidth(part, 16))


def test_pcie_3_with_four_lanes() -> None:
    raw = 4 * 8e9 / 8 * 128 / 130 * (1 - 1 / 371)
    assert pcie.raw(LINK) == pytest.approx(raw)
    # A chunk of 16 KB: 64 packets with 20 bytes around their data.
    assert pcie.read_rate(LINK, 16384) == pytest.approx(raw * 16384 / (16384 + 64 * 20))
    assert pcie.nominal(LINK) == 4e9
    assert pcie.nominal(Link(generation=4, lanes=16, max_payload=256)) == 32e9


def test_one_command_takes_read_transfer_and_link() -> None:
    part = flash()
    link = 4096 / pcie.write_rate(LINK, 4096) * 1e6
    by_hand = part.read_us + part.command_us + 4096 / part.channel_mts + link
    assert ssd.latency_us(part, LINK, 4096) == pytest.approx(by_hand)


def test_small_reads_are_bound_by_dies() -> None:
    part = flash(queue=2048)
    most = part.channels * part.dies_per_channel / part.read_us * 512 * 1e6
    assert ssd.rate(part, WIDE, 512) == pytest.approx(most, rel=0.02)


def test_large_reads_are_bound_by_the_link() -> None:
    assert ssd.rate(flash(), LINK, 16384) == pytest.approx(pcie.write_rate(LINK, 16384), rel=0.01)


def test_large_reads_are_bound_by_channels_behind_a_wide_link() -> None:
    part = flash(queue=2048, read_us=5.0)
    page = part.command_us + part.page_bytes / part.channel_mts
    assert ssd.rate(part, WIDE, part.page_bytes) == pytest.approx(
        part.channels * 16384 / page * 1e6, rel=0.03
    )


def test_a_queue_of_one_waits_for_each_command() -> None:
    part = flash(queue=1)
    single = ssd.latency_us(part, LINK, 4096)
    assert ssd.fetch_us(part, LINK, 4096, 10) == pytest.approx(10 * single)


def test_pages_of_a_range_are_dealt_out_to_dies() -> None:
    part = flash(channels=2, dies_per_channel=2, planes=2)
    found = ssd.split(part, 3, 16384 - 512, 512 + 8 * 16384 + 100)
    assert sum(page.bytes for page in found) == 512 + 8 * 16384 + 100
    # Pages 3 to 12 on four dies: dies 3 and 0 hold three of them, and read two planes at once.
    assert {page.die: page.reads for page in found} == {0: 2, 1: 1, 2: 1, 3: 2}


def test_traces_have_their_simulators_formats() -> None:
    part = load_dram("lpddr5-6400")
    reads = list(traces.reads(part, 16, 512, dram.RANDOM, 64))
    assert len(reads) == 64
    assert all(later - first == 32 for first, later in pairwise(reads[:16]))
    for line in traces.dramsim3(part, 16, reads).decode().splitlines():
        assert re.fullmatch(r"0x[0-9A-F]+ READ \d+", line)
    for line in traces.ramulator2(reads).decode().splitlines():
        assert re.fullmatch(r"LD 0x[0-9A-F]+", line)
    lines = traces.mqsim(4096, 10).decode().splitlines()
    assert all(re.fullmatch(r"\d+ 0 \d+ 8 1", line) for line in lines)
    assert len(lines) == 10


def test_the_trace_files_cover_the_table(tmp_path: Path) -> None:
    names = [path.name for path, _ in table.trace_folder_files(tmp_path)]
    assert len(names) == len(set(names)) == 3 * 3 * 2 + 3
