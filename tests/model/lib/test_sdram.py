"""Times of an SDRAM in cycles."""

import pytest

from vrex.model.lib.sdram import SDR_32MB, SdramCycles


@pytest.mark.parametrize("mhz", [1.0, 25.0, 47.6, 50.0, 99.9, 100.0, 133.0])
def test_times_are_rounded_to_the_safe_side(mhz: float) -> None:
    cycles = SDR_32MB.cycles(mhz)
    ns = 1000 / mhz
    for name in ("rcd", "rp", "ras", "rc", "rfc", "wr", "init"):
        count = getattr(cycles, name)
        assert count * ns >= getattr(SDR_32MB, name) - 1e-6, name
        assert count == 1 or (count - 1) * ns < getattr(SDR_32MB, name) or (name, count) == ("wr", 2)
    assert cycles.refresh * ns <= SDR_32MB.refresh < (cycles.refresh + 1) * ns + 1e-6


def test_at_50_mhz() -> None:
    assert SDR_32MB.bytes == 32 << 20
    assert SDR_32MB.cycles(50) == SdramCycles(
        cas=2, rcd=2, rp=2, ras=3, rc=4, rfc=4, wr=2, mrd=2, init=10_000, refresh=390
    )
    assert SDR_32MB.cycles(120).cas == 3


def test_a_clock_that_is_too_fast() -> None:
    with pytest.raises(ValueError, match="runs at up to 133 MHz, not at 140"):
        SDR_32MB.cycles(140)
