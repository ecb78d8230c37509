"""The figures of a build, for people."""

from typing import Any

SHOWN = 0.01
"""Least share of some resource of the design for a unit to have a row in the table."""


def table(figures: dict[str, Any]) -> str:
    """What each unit takes, as aligned lines; those that take next to nothing are left out."""
    resources = list(figures["has"])
    whole = figures["units"][0]
    rows = [["unit", *resources]]
    for row in figures["units"]:
        if any(row[name] > SHOWN * whole[name] for name in resources):
            level = 0 if row is whole else 1 + row["unit"].count(".")
            label = "  " * level + row["unit"].rpartition(".")[2]
            rows.append([label, *(f"{row[name]:,}" for name in resources)])
    rows.append(["the board has", *(f"{figures['has'][name]:,}" for name in resources)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def summary(figures: dict[str, Any]) -> str:
    """Clock, slowest path and time, a line each."""
    lines = [
        f"{figures['design']} of preset {figures['preset']} on {figures['board']}, "
        f"clock {figures['clock_mhz']:g} MHz, serial line {figures['baud']:,} baud"
    ]
    if "fmax_mhz" in figures:
        clocks = figures["fmax_mhz"]
        lines.append(
            f"fmax {clocks['min']:.1f} / {clocks['median']:.1f} / {clocks['max']:.1f} MHz (least, median, "
            f"most of {len(clocks['by_seed'])} placements)"
        )
        path = figures["critical_paths"][figures["seed"] - 1]
        if path is not None:
            lines.append(
                f"slowest path of seed {figures['seed']}: {path['from']} to {path['to']}, "
                f"{path['ns']:.2f} ns, logic {path['logic_ns']:.2f}, routing {path['routing_ns']:.2f}, "
                f"{path['levels']} levels"
            )
        if not figures["meets_clock"]:
            lines.append(
                f"no placement reaches {figures['clock_mhz']:g} MHz, so there is no bitstream; "
                f"choose --frequency {int(clocks['max'])} or less, or more --seeds"
            )
    else:
        lines.append("placed by the vendor's tools: run the project's script there")
    seconds = ", ".join(
        f"{name} {value:g} s{' (kept)' if name in figures['reused'] else ''}"
        for name, value in figures["seconds"].items()
    )
    lines.append(f"time: {seconds}")
    return "\n".join(lines)
