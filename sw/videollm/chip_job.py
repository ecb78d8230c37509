"""What a chunk's job tells the program in its registers."""

from dataclasses import dataclass

from vrex.model.core.program import Register

RESERVED = 11
"""Registers from 0 on that hold parameters."""


class Parameters:
    """Registers that a job sets; `state`, `tables` and `weights` go on from layer to layer.

    Attributes:
        state, tables: page of the first layer's past and of its HC tables.
        position: of the chunk's first token.
        sink_rows: rows of the chunk that are sinks.
        sinks: sinks before the chunk.
        window_first, window: first token, and number of tokens, that are neither sinks nor in a table.
        retire: of these and the chunk's, tokens that enter the table.
        input, output: page of the chunk's embeddings, and of what becomes of them.
        weights: page of the first layer's weights.
    """

    state = Register(0)
    tables = Register(1)
    position = Register(2)
    sink_rows = Register(3)
    sinks = Register(4)
    window_first = Register(5)
    window = Register(6)
    retire = Register(7)
    input = Register(8)
    output = Register(9)
    weights = Register(10)


@dataclass(frozen=True)
class Step:
    """What a chunk does to a sequence's past.

    Attributes:
        start: tokens before the chunk.
        sinks, window: of these, sinks, and those that are neither sinks nor in a table.
        sink_rows: rows of the chunk that become sinks.
        retire: tokens that enter the tables.
        tabled: tokens [sinks, tabled) are in the tables before that.
    """

    start: int
    sinks: int
    window: int
    sink_rows: int
    retire: int
    tabled: int

    @classmethod
    def of(cls, start: int, rows: int, tabled: int, sinks: int, window: int) -> "Step":
        """The step of a chunk.

        Args:
            start: tokens before it.
            rows: its tokens.
            tabled: see above; at first the number of sinks.
            sinks: first tokens, always attended.
            window: most recent tokens, always attended.
        """
        return cls(
            start=start,
            sinks=min(sinks, start),
            window=max(0, start - tabled),
            sink_rows=min(max(0, sinks - start), rows),
            retire=max(0, start + rows - window - tabled),
            tabled=tabled,
        )
