"""The design with mutants: which sources are each unit's own, and their Verilog with a selector.

Sources are instrumented as they are imported, so a design is made in a process of its own, which has imported
none of them: `make` starts one, `python -m vrex.tb.mutate.design` is it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.tb.mutate.points import Mutant, instrument

OWN = {
    "hcu": ("dre/hcu.py", "lib/stream.py"),
    "wtu": ("dre/wtu",),
    "kvpu": ("dre/kvpu.py", "dre/front.py", "dre/commands.py", "lib/registers.py", "lib/stream.py"),
    "axi": (
        "lib/axi/burst.py",
        "lib/axi/master.py",
        "lib/axi/reader.py",
        "lib/axi/signature.py",
        "lib/axi/writer.py",
        "lib/stream.py",
    ),
    "merge": ("lib/axi/merge.py",),
    "sdram": ("lib/sdram.py",),
    "registers": ("core/registers.py", "lib/axi/lite.py"),
    "front": ("core/front.py",),
    "fetch": (
        "dre/kvmu/fetch.py",
        "dre/kvmu/bitmask.py",
        "dre/kvmu/header.py",
        "dre/kvmu/segment_map.py",
        "dre/kvmu/table.py",
    ),
    "mean": ("dre/mean.py", "lib/float32.py"),
    "quant": ("dre/quant.py",),
    "codes": (
        "dre/codes/codes.py",
        "dre/codes/scorer.py",
        "dre/codes/steps.py",
        "dre/codes/votes.py",
        "dre/codes/weigher.py",
    ),
    "voter": ("dre/codes/voter.py", "dre/front.py"),
    "recall": (
        "dre/recall/aligner.py",
        "dre/recall/deliver.py",
        "dre/recall/recall.py",
        "dre/recall/records.py",
        "dre/recall/store.py",
    ),
    "dpe": ("lxe/dpe.py", "lxe/mac_tree.py"),
    "vpe": ("lxe/vpe.py", "lxe/vpe_lane.py", "lxe/fma.py"),
    "lxe": (
        "lxe/lxe.py",
        "lxe/memory.py",
        "lxe/reader.py",
        "lxe/sequencer.py",
        "lxe/sram.py",
        "lxe/walker.py",
        "lxe/writer.py",
    ),
    "dre": (
        "dre/dre.py",
        "dre/kvmu/kvmu.py",
        "dre/kvmu/retrieve.py",
        "dre/kvmu/ports.py",
        "dre/kvmu/append",
        "lib/registers.py",
    ),
    "core": (
        "core/core.py",
        "core/dispatch.py",
        "core/fetcher.py",
        "core/codes.py",
        "core/gear.py",
        "core/queue.py",
        "core/issue.py",
        "core/movers.py",
        "core/rows.py",
        "core/sequencer.py",
    ),
}
"""Sources below `hw` that a unit's bench answers for; those of the units in it have benches of their own."""

SELECTOR_VERILOG = """
module vrex_mutant(output [15:0] number);
  reg [15:0] chosen;
  initial if (!$value$plusargs("mutant=%d", chosen)) chosen = 0;
  assign number = chosen;
endmodule
"""
"""The number comes from the simulator's command line."""

SELECTOR_BOX = "attribute \\blackbox 1\nmodule \\vrex_mutant\n  wire width 16 output 1 \\number\nend\n"


def _root() -> Path:
    import vrex.hw

    return Path(str(vrex.hw.__file__)).parent


def sources(unit: str) -> list[str]:
    """Paths below `hw` of a unit's own sources, sorted."""
    root = _root()
    found = []
    for place in OWN[unit]:
        path = root / place
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [file.relative_to(root).as_posix() for file in files]
    return sorted(found)


def mutants(unit: str) -> dict[str, Mutant]:
    """All mutants that the text of a unit's sources allows, by name; not all of them change hardware."""
    found: dict[str, Mutant] = {}
    for file in sources(unit):
        _, listed = instrument((_root() / file).read_text(), file)
        found |= {mutant.name: mutant for mutant in listed}
    return found


@dataclass(frozen=True)
class Design:
    """A unit with mutants in it.

    Attributes:
        text: Verilog, or RTLIL.
        reached: names of the mutants that would change this unit's hardware.
    """

    text: str
    reached: list[str]


def make(
    unit: str,
    config: Config,
    numbers: Mapping[str, int] | None = None,
    *,
    alone: str | None = None,
    form: str = "verilog",
) -> Design:
    """Makes a design in a new process.

    Args:
        unit: a key of `OWN`.
        config: of the design.
        numbers: the number from 1 of each mutant that can be switched on.
        alone: or the mutant that is on for good.
        form: `verilog`, `rtlil` without Yosys's passes, or `none` for `reached` alone.

    Raises:
        UserError: the design can't be made.
    """
    ask = {
        "unit": unit,
        "config": config.to_dict(),
        "numbers": dict(numbers or {}),
        "alone": alone,
        "form": form,
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vrex.tb.mutate.design"],
        input=json.dumps(ask),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise UserError(f"the mutants of unit {unit} can't be made ({last})")
    return Design(**json.loads(done.stdout))


def modules(unit: str) -> dict[str, str]:
    """The unit's own modules by import name, with their sources' paths."""
    return {f"vrex.hw.{file[:-3].replace('/', '.')}": file for file in sources(unit)}


def _made(ask: dict[str, Any]) -> Design:
    """The design; only in a process that has imported no hardware yet."""
    from vrex.tb.mutate import inject

    inject.install(modules(ask["unit"]))
    state = inject.begin(ask["numbers"], ask["alone"])
    from vrex.hw.tools import generate
    from vrex.hw.tools.export import plain_rtlil, to_rtlil, to_verilog

    unit, config = ask["unit"], Config.from_dict(ask["config"])
    parts: Sequence[str] = [unit, *generate.PARTS.get(unit, ())]
    design = "".join(
        to_rtlil(inject.with_selector(generate.UNITS[part](config)), f"vrex_{part}") for part in parts
    )
    box = SELECTOR_BOX if ask["numbers"] else ""
    reached = list(state.reached)
    if ask["form"] == "none":
        return Design("", reached)
    if ask["form"] == "rtlil":
        return Design(plain_rtlil(design), reached)
    text = to_verilog(design + box, f"vrex_{unit} with mutants")
    return Design(text + (SELECTOR_VERILOG if box else ""), reached)


if __name__ == "__main__":
    made = _made(json.load(sys.stdin))
    json.dump({"text": made.text, "reached": made.reached}, sys.stdout)
