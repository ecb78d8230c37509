"""The points as a Parquet table, and the fronts as lines of text."""

import io
from collections.abc import Sequence

from vrex.sw.perf.explore.design import CORE_FIELDS, METHOD_FIELDS
from vrex.sw.perf.explore.evaluate import HARDWARE, WORKLOAD, Row
from vrex.sw.perf.report.page import cell

SHOWN = 8
"""Points of a front that the text shows; the files have all."""


def parquet(rows: Sequence[Row]) -> bytes:
    """All rows as Parquet, a column for each name; one that is null everywhere has the type null."""
    import pyarrow
    from pyarrow import parquet as writer

    out = io.BytesIO()
    writer.write_table(pyarrow.Table.from_pylist(list(rows)), out, compression="zstd")
    return out.getvalue()


def _differs(rows: Sequence[Row], name: str, within: Sequence[str]) -> bool:
    """Whether rows that are the same within some columns differ in another."""
    found: dict[tuple[object, ...], object] = {}
    return any(found.setdefault(tuple(row[own] for own in within), row[name]) != row[name] for row in rows)


def shown(rows: Sequence[Row]) -> list[str]:
    """Columns that tell rows apart: what systems and recorded settings bring along is not repeated."""
    hardware = [name for name in (*HARDWARE, *CORE_FIELDS) if name != "compute.peak_tflops"]
    of_method = ("method", "recorded")
    return [
        *("system", "method"),
        *(["recorded"] if any(row["recorded"] for row in rows) else []),
        *(name for name in hardware if _differs(rows, name, ("system",))),
        *(name for name in METHOD_FIELDS if _differs(rows, name, of_method)),
    ]


def text(rows: Sequence[Row], objectives: Sequence[str]) -> str:
    """A table for each workload: the points of its front with what tells them apart."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in WORKLOAD), []).append(row)
    fit = sum(row["fits"] for row in rows)
    lines = [f"{len(rows)} points, {fit} fit; fronts of {', '.join(objectives)}"]
    for (model, vision, kv, batch), group in groups.items():
        front = sorted((row for row in group if row["front"]), key=lambda row: -row["fps"])
        lines += ["", f"{model}, {vision}, {kv} tokens, batch {batch}: {len(front)} of {len(group)} points"]
        names = [*shown(front), *objectives]
        lines += _table([[cell(row[name]) for name in names] for row in front[:SHOWN]], names)
        if len(front) > SHOWN:
            lines.append(f"... and {len(front) - SHOWN} more")
    return "\n".join(lines)


def _table(cells: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    whole = [list(names), *map(list, cells)]
    widths = [max(len(line[place]) for line in whole) for place in range(len(names))]
    return [
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in whole
    ]
