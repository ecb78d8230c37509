"""The paper's numbers, from `data/paper.toml`."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from vrex.errors import UserError
from vrex.sw.perf.description.sections import DATA, read_toml

_FIELDS = {"figure", "system", "method", "metric", "batch", "kv", "paper", "over", "source"}


@dataclass(frozen=True)
class Quantity:
    """A number that can be computed, and the paper's where it has one.

    Attributes:
        figure, system, method, metric: names; `method` is empty where none matters.
        kv, batch: 0 where none belongs to it.
        over: system and method with a slash between them that a gain is over.
        paper: the paper's number; None: it has none.
        source: where it stands there.
    """

    figure: str
    system: str
    method: str
    metric: str
    kv: int
    batch: int
    over: str
    paper: float | None
    source: str


@cache
def numbers() -> list[Quantity]:
    """All numbers of the paper.

    Raises:
        UserError: the file is not as it should be.
    """
    path = DATA / "paper.toml"
    found = []
    for place, entry in enumerate(read_toml(path)["series"]):
        if set(entry) != _FIELDS or len(entry["kv"]) != len(entry["paper"]):
            raise UserError(
                f"{path}: series {place} has not the fields {', '.join(sorted(_FIELDS))}, kv as long as paper"
            )
        for kv, paper in zip(entry["kv"], entry["paper"], strict=True):
            shared = {name: entry[name] for name in _FIELDS - {"kv", "paper"}}
            found.append(Quantity(kv=kv, paper=float(paper) or None, **shared))
    return found


def stated() -> dict[str, Any]:
    """Tables `ratios` and `dre`."""
    return {name: value for name, value in read_toml(DATA / "paper.toml").items() if name != "series"}


def lookup(
    figure: str, metric: str, kv: int, batch: int = 1, system: str = "", method: str = "vrex"
) -> float:
    """One number of the paper.

    Raises:
        KeyError: it is not there.
    """
    for entry in numbers():
        key = (entry.figure, entry.metric, entry.kv, entry.batch, entry.method)
        if key == (figure, metric, kv, batch, method) and system in ("", entry.system) and entry.paper:
            return entry.paper
    raise KeyError((figure, metric, kv, batch, system, method))
