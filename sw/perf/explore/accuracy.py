"""Recorded settings of retrieval with the accuracy that they had (`data/accuracy.json`)."""

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.sections import DATA
from vrex.sw.perf.explore.design import change_method


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a policy at a setting attended to and how many questions it answered right.

    Attributes:
        name: of the record.
        predictors: of methods that select so.
        ratio_frame, ratio_text: selected of the past, sinks and window included.
        kv_bits, mean_bits: of values of K and V, and of means.
        cluster_tokens: tokens of a cluster; None where the policy has none, or none were counted.
        accuracy, low, high: share of right answers with its interval of 95 %.
        n: questions.
        benchmark: videos and model.
        source: file, and the commit that recorded it.
    """

    name: str
    predictors: tuple[str, ...]
    ratio_frame: float
    ratio_text: float
    kv_bits: float
    mean_bits: int
    cluster_tokens: float | None
    accuracy: float
    low: float
    high: float
    n: int
    benchmark: str
    source: str

    def fits(self, method: Method) -> bool:
        """Whether a method selects in the way that was recorded."""
        return method.predictor in self.predictors

    def applied(self, method: Method) -> Method:
        """The method with ratios, bits and clusters as recorded."""
        changes: dict[str, Any] = {
            name: getattr(self, name) for name in ("ratio_frame", "ratio_text", "kv_bits", "mean_bits")
        }
        if self.cluster_tokens is not None:
            changes["cluster_tokens"] = self.cluster_tokens
        return change_method(method, changes)


@cache
def records() -> dict[str, Recorded]:
    """All records by name."""
    entries = json.loads((DATA / "accuracy.json").read_text(encoding="utf-8"))["records"]
    names = [field.name for field in dataclasses.fields(Recorded)]
    found = [Recorded(**{name: entry[name] for name in names}) for entry in entries]
    return {entry.name: dataclasses.replace(entry, predictors=tuple(entry.predictors)) for entry in found}


def known(method: Method, recorded: str | None) -> Recorded | None:
    """The record of a method: the one that it was given, or one that is the same in all that counts.

    Ratios of the paper, or of a sweep, have none: nobody has asked questions at them.
    """
    if recorded is not None:
        found = records()[recorded]
        return found if found.applied(method) == method else None
    for entry in records().values():
        if entry.fits(method) and entry.applied(method) == method:
            return entry
    return None
