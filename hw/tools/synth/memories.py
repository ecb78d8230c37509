"""The memories of a module: which stay macros, and how large they are."""

from typing import Any

MEMORY = "$mem_v2"
LEAST_WORDS = 3
"""Words that a macro has at least: of two, each is a register."""


def of_module(module: dict[str, Any]) -> list[dict[str, Any]]:
    """The memories of one module without those below it.

    Args:
        module: of Yosys's `write_json`, memories as cells of type `$mem_v2`.

    Returns:
        Of each `cell`, `depth`, `width` (words and bits of a word) and `kind`: "macro": stays a black box;
        "registers": flip-flops, because there are less than `LEAST_WORDS`, or because a word is read in the
        very cycle of its address, which no SRAM macro does; "logic": a table of constants, made of gates.
    """
    return [
        {
            "cell": name,
            "depth": _integer(cell["parameters"]["SIZE"]),
            "width": _integer(cell["parameters"]["WIDTH"]),
            "kind": _kind(cell["parameters"]),
        }
        for name, cell in module["cells"].items()
        if cell["type"] == MEMORY
    ]


def _kind(parameters: dict[str, Any]) -> str:
    if _integer(parameters["WR_PORTS"]) == 0:
        return "logic"
    # A bit for each read port: whether it has a clock.
    ports = _integer(parameters["RD_PORTS"])
    clocked = _integer(parameters["RD_CLK_ENABLE"]) if ports else 0
    small = _integer(parameters["SIZE"]) < LEAST_WORDS
    return "registers" if small or clocked != (1 << ports) - 1 else "macro"


def _integer(value: int | str) -> int:
    return int(value, 2) if isinstance(value, str) else value
