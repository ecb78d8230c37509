"""Waveforms as SVG: one column a clock cycle, one row a signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLUMN, ROW, LEFT, HIGH = 44, 34, 150, 20
"""Pixels: width of a cycle, height of a row, space for the names, height of a trace."""


@dataclass(frozen=True)
class Row:
    """A signal.

    Attributes:
        name: shown on the left.
        values: in each cycle, as sampled before its rising edge.
        text: of a value of a bus; None draws a single bit.
        shown: cycles in which the value means something; None is all. Elsewhere nothing is written.
    """

    name: str
    values: Sequence[int]
    text: Callable[[int], str] | None = None
    shown: Sequence[int] | None = None


@dataclass(frozen=True)
class Channel:
    """Rows that belong to one handshake; cycles with a transfer are shaded.

    Attributes:
        valid, ready: a transfer is in the cycles with both.
        payload: the other rows.
    """

    valid: Row
    ready: Row
    payload: Sequence[Row]

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [self.valid, self.ready, *self.payload]


def render(title: str, parts: Sequence[Row | Channel]) -> str:
    """An SVG element for a page, in the page's own text colour."""
    rows = [row for part in parts for row in _rows(part)]
    cycles = len(rows[0].values)
    names = ["clk", *(row.name for row in rows)]
    drawn = [_clock(cycles)]
    drawn += [_bus(row, index) if row.text else _bit(row, index) for index, row in enumerate(rows, 1)]
    shaded, top = [], ROW
    for part in parts:
        if isinstance(part, Channel):
            both = zip(part.valid.values, part.ready.values, strict=True)
            shaded += [_shade(at, top, len(part.rows)) for at, levels in enumerate(both) if all(levels)]
        top += len(_rows(part)) * ROW
    width, height = LEFT + cycles * COLUMN + 10, (len(names) + 1) * ROW - 8
    numbers = [
        f'<text x="{LEFT + (at + 0.5) * COLUMN}" y="{height - 6}" class="w-number">{at}</text>'
        for at in range(cycles)
    ]
    labels = [
        f'<text x="{LEFT - 10}" y="{at * ROW + ROW - 11}" class="w-name">{escape(name)}</text>'
        for at, name in enumerate(names)
    ]
    body = "".join([*shaded, *drawn, *labels, *numbers])
    return (
        f'<svg class="waveform" role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _rows(part: Row | Channel) -> list[Row]:
    return part.rows if isinstance(part, Channel) else [part]


def _shade(at: int, top: int, rows: int) -> str:
    x, height = LEFT + at * COLUMN, rows * ROW - 2
    return f'<rect class="w-moves" x="{x}" y="{top + 2}" width="{COLUMN}" height="{height}"/>'


def _clock(cycles: int) -> str:
    low = ROW - 8
    path = f"M{LEFT} {low}"
    for at in range(cycles):
        # The rising edge ends the cycle: what a column shows is what the registers take there.
        x = LEFT + at * COLUMN
        path += f" V{low} H{x + COLUMN // 2} V{low - HIGH} H{x + COLUMN}"
    return f'<path class="w-line" d="{path}"/>'


def _bit(row: Row, index: int) -> str:
    low = index * ROW + ROW - 8
    path = ""
    for at, value in enumerate(row.values):
        y = low - (HIGH if value else 0)
        path += f"{'V' if path else f'M{LEFT} '}{y} H{LEFT + (at + 1) * COLUMN} "
    return f'<path class="w-line" d="{path}"/>'


def _bus(row: Row, index: int) -> str:
    """Runs of one value as a hexagon each, with its text where it means something."""
    assert row.text is not None
    low = index * ROW + ROW - 8
    high, middle = low - HIGH, low - HIGH // 2
    shown = row.shown if row.shown is not None else [1] * len(row.values)
    parts, start = [], 0
    for at in range(1, len(row.values) + 1):
        if at < len(row.values) and (row.values[at], shown[at]) == (row.values[start], shown[start]):
            continue
        if at < len(row.values) and not shown[at] and not shown[start]:
            continue
        x, end = LEFT + start * COLUMN, LEFT + at * COLUMN
        if shown[start]:
            outline = f"M{x} {middle} L{x + 4} {high} H{end - 4} L{end} {middle} L{end - 4} {low} H{x + 4} Z"
            parts.append(f'<path class="w-line" d="{outline}"/>')
            text = escape(row.text(row.values[start]))
            parts.append(f'<text x="{(x + end) / 2}" y="{middle + 4}" class="w-value">{text}</text>')
        else:
            parts.append(f'<path class="w-idle" d="M{x} {middle} H{end}"/>')
        start = at
    return "".join(parts)
