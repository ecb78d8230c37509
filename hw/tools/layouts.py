"""The page of layouts and registers in the docs, from the tables of the model."""

from vrex.model.commands import COMPLETION, DESCRIPTOR
from vrex.model.dre.hcu import DECISION
from vrex.model.dre.kvstore import COPY_PAGES, HEADER
from vrex.model.dre.registers import SCALE, register_table
from vrex.model.lib.layout import Layout
from vrex.model.lxe.instructions import COMPLETION as PROGRAM_END
from vrex.model.lxe.instructions import INSTRUCTION

LAYOUTS: dict[str, Layout] = {
    "Descriptor of a command": DESCRIPTOR,
    "Completion of a command": COMPLETION,
    "Decision of CLUSTER and APPEND": DECISION,
    "Register SCALE": SCALE,
    "Header of an HC table": HEADER,
    "Pages of the quantised copy, after the header": COPY_PAGES,
    "Instruction of the LXE": INSTRUCTION,
    "Completion of a program of the LXE": PROGRAM_END,
}
"""Layouts of the docs by heading."""


def page() -> str:
    """The page in Markdown."""
    parts = [
        "# Layouts and registers",
        "Written by `python -m vrex.hw.tools.layouts` from the tables in `model/`; do not edit. All layouts "
        "are little-endian: bit 0 is the lowest bit of byte 0.",
    ]
    for heading, layout in LAYOUTS.items():
        parts += [f"## {heading}", f"`{layout.name}`, {layout.bits} bits.", layout.table()]
    parts += ["## Registers", "SETREG writes, GETREG reads; RO registers count and wrap.", register_table()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
