"""Selection by bits of which at most one is set."""

import operator
from collections.abc import Iterable
from typing import Any

from amaranth import Mux

from vrex.hw.lib.stream import reduce_tree


def any_of(flags: Iterable[Any]) -> Any:
    """Whether one of the bits is set."""
    return reduce_tree(list(flags), operator.or_)


def select(values: Iterable[tuple[Any, Any]]) -> Any:
    """The value whose bit is set, of (bit, value), at most one of them; 0 for none."""
    return any_of(Mux(flag, value, 0) for flag, value in values)
