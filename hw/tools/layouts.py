"""The page of layouts and registers in the docs, from the tables of the model."""

from vrex.model.commands import COMPLETION, DESCRIPTOR, VOTE_PARAM
from vrex.model.core.instructions import CONTROL, HEAD, JOB, JOB_END, MOVE, PATCH
from vrex.model.core.registers import register_table as core_register_table
from vrex.model.core.top import TOP_REGISTERS
from vrex.model.dre.hcu import DECISION
from vrex.model.dre.kvstore import COPY_PAGES, HEADER
from vrex.model.dre.registers import SCALE, register_table
from vrex.model.dre.token_store import STORE_HEADER
from vrex.model.lib.layout import Layout
from vrex.model.lxe.instructions import COMPLETION as PROGRAM_END
from vrex.model.lxe.instructions import INSTRUCTION

LAYOUTS: dict[str, Layout] = {
    "Descriptor of a command": DESCRIPTOR,
    "Completion of a command": COMPLETION,
    "Decision of CLUSTER and APPEND": DECISION,
    "Register SCALE": SCALE,
    "`param` of a VOTE or RECALL": VOTE_PARAM,
    "Header of an HC table": HEADER,
    "Pages of the quantised copy, after the header": COPY_PAGES,
    "Header of a token store": STORE_HEADER,
    "Instruction of the LXE": INSTRUCTION,
    "Completion of a program of the LXE": PROGRAM_END,
    "First words of an instruction of a core": HEAD,
    "Patch of such an instruction": PATCH,
    "Instruction of control, from word 3 on": CONTROL,
    "MOVE, from word 3 on": MOVE,
    "Job of a core": JOB,
    "End of a job": JOB_END,
}
"""Layouts of the docs by heading."""

CORE_REGISTERS = (
    "Behind its AXI4-Lite port. RW, RO; W1C: a 1 clears its bit; OFF: RW while `CONTROL.enable` is 0, else a "
    "write is answered with SLVERR; COUNT: read-only, counts and wraps."
)

CHIP_REGISTERS = (
    "In the first 4 KiB behind the chip's AXI4-Lite port; those of core k follow at 0x1000 * (1 + k). "
    "An access to no register, or a write to RO, is answered with SLVERR."
)


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
    parts += ["## Registers of a core", CORE_REGISTERS, core_register_table()]
    parts += ["## Registers of a chip of several cores", CHIP_REGISTERS, core_register_table(TOP_REGISTERS)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
