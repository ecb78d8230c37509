"""What several subcommands share."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from vrex.sw.evaluation.points import Point
    from vrex.sw.evaluation.store import Store


class Keyed(Protocol):
    """What a store keeps the result of."""

    def key(self) -> dict[str, Any]:
        """What the store knows it by."""
        ...


class KeyedCell(Keyed, Protocol):
    """A cell of an evaluation: a policy's point on one case."""

    @property
    def point(self) -> "Point":
        """The policy at its setting."""
        ...


AnyCell = TypeVar("AnyCell", bound=KeyedCell)


@contextmanager
def saying_what_is_kept(
    cells: Sequence[Keyed], store: "Store", lasting: bool, what: str = "cells"
) -> Iterator[None]:
    """Says how many cells, or what else they are, are kept when the user stops what runs inside."""
    from tqdm import tqdm

    try:
        yield
    except KeyboardInterrupt:
        if not lasting:
            raise
        store.read()
        done = sum(cell.key() in store for cell in cells)
        tqdm.write(
            f"vrex: {done} of {len(cells)} {what} are kept in {store.path}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        raise


def run_missing(
    cells: Sequence[AnyCell], store: "Store", run: Callable[[AnyCell], dict[str, Any]], lasting: bool
) -> None:
    """Runs the missing cells behind a progress bar; says what is kept when the user stops it."""
    from tqdm import tqdm

    missing = [cell for cell in cells if cell.key() not in store]
    bar = tqdm(total=len(cells), initial=len(cells) - len(missing), unit="cell", disable=None)
    with bar, saying_what_is_kept(cells, store, lasting):
        for cell in missing:
            bar.set_description(cell.point.policy)
            store.add(cell.key(), run(cell))
            bar.update()
