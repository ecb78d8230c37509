"""The coverage recorder and the stimuli that must reach its bins."""

import numpy as np
import pytest

from vrex.model.lib import arith
from vrex.tb.lib.coverage import BINS, Coverage, holes
from vrex.tb.lib.stimuli import COUNTS, SCORES


@pytest.mark.parametrize("unit", BINS)
def test_bins_are_distinct(unit: str) -> None:
    assert len(set(BINS[unit])) == len(BINS[unit])


def test_a_bin_counts_when_its_condition_holds() -> None:
    coverage = Coverage("hcu")
    coverage.hit("empty table")
    coverage.hit("one token", condition=False)
    coverage.hit("one token", condition=np.bool_(True))
    assert coverage.hits == {"empty table": 1, "one token": 1}


def test_an_unknown_bin_is_an_error() -> None:
    with pytest.raises(KeyError):
        Coverage("hcu").hit("no such bin", condition=False)


def test_holes_are_what_was_not_hit() -> None:
    assert holes("wtu", BINS["wtu"]) == []
    assert holes("wtu", [name for name in BINS["wtu"] if name != "NaN score"]) == ["NaN score"]


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_scores_are_bf16_bits(kind: str, n: int) -> None:
    row = SCORES[kind](np.random.default_rng(1), n)
    assert (row.dtype, row.shape) == (np.uint16, (n,))


def test_score_classes_are_what_they_say() -> None:
    rng = np.random.default_rng(2)
    value = {kind: arith.from_bf16(make(rng, 200)) for kind, make in SCORES.items()}
    assert np.isnan(value["nan"]).all()
    assert np.isinf(value["infinite"]).all()
    assert (value["zeros"] == 0).all()
    assert np.signbit(value["zeros"]).any()
    assert not np.signbit(value["zeros"]).all()
    assert (value["negative"] <= 0).all()
    assert (value["positive"] >= 0).all()
    assert len(set(value["constant"])) == 1
    assert len(set(value["ties"])) <= 3
    assert value["cancelling"].astype(np.float64).sum() == 0
    assert (abs(value["subnormal"]) < 2.0**-126).all()
    assert np.isfinite(value["exponents"]).all()


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_fit_their_field(kind: str) -> None:
    counts = COUNTS[kind](np.random.default_rng(3), 300)
    assert counts.shape == (300,)
    assert counts.min() >= 0
    assert counts.max() <= 65535
