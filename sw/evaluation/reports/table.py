"""Text for the terminal: aligned columns, and the table that ends a run."""

from collections.abc import Sequence
from typing import Any

NAME_WIDTH = len("RTL cycles / frame")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of words as aligned columns; all lines have as many words."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def format_run(result: dict[str, Any]) -> str:
    """The figures of one run as aligned lines.

    Args:
        result: as ``vrex run --json`` writes it (docs/json.md).
    """
    rows = [
        ("policy", _policy(result)),
        ("frames", _frames(result)),
        ("questions", _questions(result)),
        ("retrieval ratio", _ratio(result)),
    ]
    if result["settings"]["policy"] == "resv":
        rows += [("clusters", _clusters(result)), ("engine calls", f"{result['rtl']['calls']:,}")]
        rows += [("degenerate rows", _degenerate(result))]
    if result.get("nan_keys") or ("nan_keys" in result and result["degenerate_rows"]):
        rows += [("not finite", _broken(result))]
    if "dre" in result:
        rows += [("DRE memory", _delivered(result))]
    if "stores" in result:
        rows += [("DRE memory", _stores(result))]
    if "lxe" in result:
        rows += [("LXE", _lxe(result))]
    if "core" in result:
        rows += [("core", _core(result)), ("host traffic", _host(result))]
    if "layer_ulps" in result.get("lxe", {}):
        rows += [("LXE layers", _layers(result)), ("LXE logits", _logits(result))]
    if "cache" in result:
        rows += [("cache", _cache(result))]
    if result["settings"]["backend"] != "golden":
        rows += [("RTL cycles / frame", _cycles(result)), ("RTL check", _check(result))]
    if "link" in result["rtl"]:
        rows += [("serial link", _link(result))]
    if result["settings"].get("arithmetic") == "dpi":
        rows += [("RTL arithmetic", "MAC trees and vector lanes are C++ functions, not Verilog")]
    return "\n".join(format_row(name, value) for name, value in rows)


def format_row(name: str, value: object) -> str:
    """One line of the table."""
    return f"{name:<{NAME_WIDTH}}  {value}"


def _policy(result: dict[str, Any]) -> str:
    settings = result["settings"]
    option = settings["fallback_for"]
    return settings["policy"] + ("" if option is None else f", the default with {option}")


def _frames(result: dict[str, Any]) -> str:
    return f"{result['frames']} at {result['fps']:.2f} frames/s"


def _questions(result: dict[str, Any]) -> str:
    correct = result["correct"]
    return f"{result['questions']}" + ("" if correct is None else f", {correct} answered right")


def _ratio(result: dict[str, Any]) -> str:
    ratio = result["ratio"]
    return f"frame {_percent(ratio['frame'])}, text {_percent(ratio['text'])} of the past tokens attended"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _clusters(result: dict[str, Any]) -> str:
    tokens = result["tokens_per_cluster"]
    return "none" if tokens is None else f"{result['clusters']:,} of {tokens:.1f} tokens on average"


def _degenerate(result: dict[str, Any]) -> str:
    return f"{result['degenerate_rows']:,} of {result['rows']:,} rows (weighted sum not positive)"


def _broken(result: dict[str, Any]) -> str:
    return f"{result['nan_keys']:,} keys, never selected; {result['degenerate_rows']:,} rows, without a vote"


def _delivered(result: dict[str, Any]) -> str:
    dre = result["dre"]
    fill = "none" if dre["fill"] is None else f"{_percent(dre['fill'])} full"
    return f"{dre['delivered_bytes'] / 1e6:,.1f} MB delivered; {dre['segments']:,} segments, {fill}"


def _stores(result: dict[str, Any]) -> str:
    stores = result["stores"]
    return (
        f"{stores['delivered_bytes'] / 1e6:,.1f} MB delivered; {stores['tokens']:,} tokens of a KV head, "
        f"{stores['bytes'] / 1e6:,.2f} MB of codes and headers"
    )


def _lxe(result: dict[str, Any]) -> str:
    lxe = result["lxe"]
    frames = max(result["frames"], 1)
    return (
        f"{lxe['programs']:,} programs, {lxe['cycles'] / frames:,.0f} cycles / frame, preset {lxe['preset']}"
    )


def _core(result: dict[str, Any]) -> str:
    core, frames = result["core"], max(result["frames"], 1)
    each = core["instructions"] / frames
    return f"{core['jobs']:,} jobs, {each:,.0f} instructions / frame, preset {core['preset']}"


def _host(result: dict[str, Any]) -> str:
    host = result["host"]
    return f"{_number(host['bytes_per_frame'])} bytes / frame through registers and rings"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _layers(result: dict[str, Any]) -> str:
    worst = ", ".join(f"{index}: {ulps:.2f}" for index, ulps in result["lxe"]["layer_ulps"].items())
    return f"largest difference to software in BF16 ulps of the row's largest, layer {worst}"


def _logits(result: dict[str, Any]) -> str:
    logits = result["lxe"]["logits"]
    return (
        f"{_percent(logits['largest_difference'])} of the largest at most; the same word first in "
        f"{logits['same_word']:,} of {logits['rows']:,} rows"
    )


def _cache(result: dict[str, Any]) -> str:
    cache = result["cache"]
    read = [
        f"{cache['tiers'][tier]['bytes'] / 1e6:,.1f} MB from {tier}" for tier in ("device", "host", "file")
    ]
    return f"{', '.join(read)}; {cache['file_bytes'] / 1e6:,.1f} MB in the file"


def _cycles(result: dict[str, Any]) -> str:
    rtl, frames = result["rtl"], max(result["frames"], 1)
    units = ", ".join(f"{unit} {cycles / frames:,.0f}" for unit, cycles in rtl["units"].items())
    return f"{rtl['cycles'] / frames:,.0f}" + (f" ({units})" if units else "")


def _link(result: dict[str, Any]) -> str:
    link = result["rtl"]["link"]
    rate = link["payload_bytes"] / link["seconds"] / 1000 if link["seconds"] else 0.0
    frames = link["frames"] + link["received"]
    line = link["sent_bytes"] + link["received_bytes"]
    each = f", {line / result['frames'] / 1000:,.1f} KB a video frame" if result["frames"] else ""
    return (
        f"{link['payload_bytes'] / 1e6:,.2f} MB at {rate:,.1f} KB/s; {line / 1e6:,.2f} MB on the line{each}; "
        f"{frames:,} frames, {link['resent'] + link['repeated']:,} again, {link['damaged']:,} damaged, "
        f"{link['resets']} resets"
    )


def _check(result: dict[str, Any]) -> str:
    if not result["settings"]["check"]:
        return "not asked for"
    parts = [result["rtl"], result.get("lxe", {})]
    compared, mismatches = (sum(part.get(name, 0) for part in parts) for name in ("compared", "mismatches"))
    return f"{compared:,} results compared with the golden model, {mismatches:,} mismatches"
