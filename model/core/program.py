"""Assembles programs of a core: registers, labels, moves, and instructions of LXE and DRE between them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vrex.model.commands import DESCRIPTOR, Descriptor
from vrex.model.config import Config
from vrex.model.core.instructions import (
    BODY_WORD,
    CONTROL,
    MOVE,
    PATCHES,
    REGISTERS,
    Condition,
    Control,
    Engine,
    Function,
    Instruction,
    Mode,
    Move,
    Opcode,
    Patch,
    Port,
)
from vrex.model.lib.layout import Layout
from vrex.model.lib.memory import PAGE
from vrex.model.lxe.instructions import INSTRUCTION as LXE_INSTRUCTION
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.instructions import Opcode as LxeOpcode
from vrex.model.lxe.instructions import Operand
from vrex.model.lxe.program import Assembler, Tensor

WORD = (1 << 32) - 1

ROW_BYTES = 1 << 20
"""Bytes that one row of a move of weights takes at most."""


@dataclass(frozen=True)
class Register:
    """A register of the sequencer as an operand.

    Attributes:
        number: of the register.
        plus: what is added to its value.
    """

    number: int
    plus: int = 0

    def __add__(self, constant: int) -> "Register":
        return replace(self, plus=self.plus + constant)


Value = int | Register
"""What a field of an instruction is given."""


@dataclass(frozen=True)
class Address:
    """A place in memory that is known in full only when the program runs.

    Attributes:
        base: byte.
        pages: register whose value, in pages of 4 KiB, is added.
        bytes: register whose value, in bytes, is added.
    """

    base: int = 0
    pages: Register | None = None
    bytes: Register | None = None

    def __add__(self, offset: int) -> "Address":
        return replace(self, base=self.base + offset)

    @property
    def constant(self) -> int:
        """What does not come from registers, in bytes."""
        return self.base + sum(
            register.plus * unit
            for register, unit in ((self.pages, PAGE), (self.bytes, 1))
            if register is not None
        )

    def patches(self, layout: Layout, field: str = "address") -> list[Patch]:
        """The patches of a field of a layout."""
        parts = ((self.pages, Mode.PAGES), (self.bytes, Mode.BYTES))
        word = _place(layout, field)[0]
        return [Patch(word, mode, register.number) for register, mode in parts if register is not None]


def _place(layout: Layout, name: str) -> tuple[int, Mode]:
    """Word of an instruction in which a field of its body begins, and how a patch adds to it.

    Raises:
        ValueError: the field is no half of a word and does not begin one.
    """
    for low, leaf, field in layout.leaves():
        if leaf == name:
            word, bit = BODY_WORD + low // 32, low % 32
            if field.bits == 16:
                return word, Mode.HIGH if bit else Mode.LOW
            if bit == 0 and field.bits > 16:
                return word, Mode.WORD
    raise ValueError(f"{layout.name} has no field {name} that a register can be added to")


class Pool:
    """Constants in memory, each once, for the host to write.

    Attributes:
        fresh: (address, bytes) of those that `take` has not handed out yet.
    """

    ALIGNMENT = 64

    def __init__(self, start: int, size: int) -> None:
        """An empty pool of so many bytes."""
        self.fresh: list[tuple[int, bytes]] = []
        self._known: dict[bytes, int] = {}
        self._next, self._end = start, start + size

    def add(self, data: bytes) -> int:
        """The address of these bytes.

        Raises:
            ValueError: the pool is full.
        """
        if data in self._known:
            return self._known[data]
        address = self._next
        after = address + -(-len(data) // self.ALIGNMENT) * self.ALIGNMENT
        if after > self._end:
            raise ValueError(
                f"constants and programs need {after - self._end} bytes more than there are: "
                "make the pool larger"
            )
        self._known[data], self._next = address, after
        self.fresh.append((address, data))
        return address

    def take(self) -> list[tuple[int, bytes]]:
        """What was added since the last call."""
        fresh, self.fresh = self.fresh, []
        return fresh


@dataclass(eq=False)
class Label:
    """A place in a program; `index` is known once the label is set."""

    index: int | None = None


class CoreProgram(Assembler):
    """Instructions of a core.

    Tensors and products are those of `Assembler`; what they take on `din` goes to the pool, and a move from
    there comes before the instruction. Nothing else is ordered for the caller (see
    `vrex.model.core.instructions`).
    """

    def __init__(self, config: Config, pool: Pool, reserved: int = 0) -> None:
        """An empty program.

        Args:
            config: accelerator.
            pool: for constants.
            reserved: registers from 0 on that `registers` does not give out.

        Raises:
            ValueError: the configuration makes no core.
        """
        config.check_core()
        super().__init__(config)
        self.pool = pool
        self._code: list[tuple[Instruction, Label | None]] = []
        self._free = list(range(reserved, REGISTERS))
        self._variable: dict[str, Register] = {}
        self._kept: dict[bytes, Tensor] = {}

    # Registers and control.

    @contextmanager
    def registers(self, number: int) -> Iterator[list[Register]]:
        """Context that owns so many registers; what they hold at first is not defined.

        Raises:
            ValueError: there are not as many.
        """
        if number > len(self._free):
            raise ValueError(f"{number} registers are wanted, but {len(self._free)} are free")
        taken, self._free = self._free[:number], self._free[number:]
        try:
            yield [Register(n) for n in taken]
        finally:
            self._free = sorted([*taken, *self._free])

    def release(self, register: Register) -> None:
        """Lets `registers` give out a reserved register from here on."""
        self._free = sorted([*self._free, register.number])

    def compute(self, function: Function, destination: Register, a: Register, b: Value) -> None:
        """Destination = function(a, b).

        Raises:
            ValueError: a register with a constant added.
        """
        fields: dict[str, Any] = {"destination": _bare(destination), "a": _bare(a), "function": function}
        if isinstance(b, Register):
            self._emit(Opcode.COMPUTE, Control(**fields, b=_bare(b), use_b=True))
        else:
            self._emit(Opcode.COMPUTE, Control(**fields, immediate=b & WORD))

    def set(self, destination: Register, value: Value) -> None:
        """Destination = value."""
        if isinstance(value, Register) and value.plus:
            self.compute(Function.ADD, destination, replace(value, plus=0), value.plus)
        else:
            self.compute(Function.COPY, destination, destination, value)

    def multiply(self, destination: Register, a: Register, factor: int) -> None:
        """Destination = a times a constant, by shifts and sums.

        Raises:
            ValueError: the factor is below 1, or the destination is the operand.
        """
        if factor < 1 or destination.number == a.number:
            raise ValueError(f"{a} times {factor} to {destination} can't be computed by shifts and sums")
        self.set(destination, a)
        digits = f"{factor:b}"[1:]
        for zeros in digits.split("1")[:-1]:
            self.compute(Function.SHL, destination, destination, len(zeros) + 1)
            self.compute(Function.ADD, destination, destination, a)
        if rest := len(digits) - (digits.rfind("1") + 1):
            self.compute(Function.SHL, destination, destination, rest)

    def round_up(self, destination: Register, a: Register, unit: int) -> None:
        """Destination = a rounded up to a multiple of a power of two."""
        self.set(destination, a + (unit - 1))
        self.compute(Function.AND, destination, destination, (1 << 32) - unit)

    def label(self) -> Label:
        """A label at this place."""
        return Label(len(self._code))

    def place(self, label: Label) -> None:
        """Sets a label to this place."""
        label.index = len(self._code)

    def branch(
        self, target: Label, condition: Condition = Condition.ALWAYS, a: Register | None = None
    ) -> None:
        """Goes on at a label, which may be set later, if register a meets the condition."""
        self._emit(Opcode.BRANCH, Control(function=condition, a=0 if a is None else _bare(a)), label=target)

    @contextmanager
    def unless_zero(self, a: Register) -> Iterator[None]:
        """Context whose instructions are passed over when the register is 0."""
        behind = Label()
        self.branch(behind, Condition.ZERO, a)
        yield
        self.place(behind)

    @contextmanager
    def while_nonzero(self, a: Register) -> Iterator[None]:
        """Context whose instructions are executed, then again as long as the register is not 0."""
        begin = self.label()
        yield
        self.branch(begin, Condition.NONZERO, a)

    def read(self, destination: Register, address: Address) -> None:
        """Destination = the 32-bit word there."""
        self._at(Opcode.READ, Control(destination=_bare(destination)), address)

    def write(self, address: Address, a: Register) -> None:
        """Register a to the 32-bit word there."""
        self._at(Opcode.WRITE, Control(a=_bare(a)), address)

    def wait(self, engines: Engine) -> None:
        """For these engines to be idle."""
        self._emit(Opcode.WAIT, Control(immediate=int(engines)))

    def barrier(self, cores: int) -> None:
        """For the others of so many cores (see `Opcode`)."""
        self._emit(Opcode.BARRIER, Control(immediate=cores))

    def tokens(self, destination: Register, most: int) -> None:
        """Destination = tokens that may be moved from `kv` now (see `Opcode`)."""
        self._emit(Opcode.TOKENS, Control(destination=_bare(destination), immediate=most))

    def detail(self, destination: Register) -> None:
        """Destination = detail of the DRE's last completion."""
        self._emit(Opcode.DETAIL, Control(destination=_bare(destination)))

    def end(self) -> None:
        """The job ends here."""
        self._emit(Opcode.END, Control())

    # Moves and the DRE.

    def move(self, source: Port, sink: Port, at: Address | None = None, **fields: Value) -> None:
        """A MOVE, by the fields of `Move`.

        Raises:
            ValueError: a register for a field that takes none, or too many registers.
        """
        constants, patches = _split(fields, MOVE)
        address = at or Address()
        body = Move(source=source, sink=sink, address=address.constant, **constants)
        self._emit(Opcode.MOVE, body, (*address.patches(MOVE), *patches))

    def move_codes(self, bits: int, at: Address, scales: Address, **fields: Value) -> None:
        """A MOVE of rows of codes to the LXE, which gets BF16; fields and errors as of `move`."""
        constants, patches = _split(fields, MOVE)
        places = {"address": at.constant, "scales": scales.constant}
        body = Move(source=Port.MEMORY, sink=Port.LXE, bits=bits, **places, **constants)
        self._emit(Opcode.MOVE, body, (*at.patches(MOVE), *scales.patches(MOVE, "scales"), *patches))

    def dre(self, opcode: int, at: Address | None = None, **fields: Value) -> None:
        """A command of the DRE, by the fields of `Descriptor`; errors as of `move`."""
        constants, patches = _split(fields, DESCRIPTOR)
        address = at or Address()
        body = Descriptor(opcode, address=address.constant, **constants)
        self._emit(Opcode.DRE, body, (*address.patches(DESCRIPTOR), *patches))

    # The LXE.

    @contextmanager
    def variable(self, fields: Mapping[str, Register]) -> Iterator[None]:
        """Context in which fields of all instructions of the LXE come from registers.

        Args:
            fields: registers by the names of `vrex.model.lxe.instructions.INSTRUCTION`. To an operand's base
                they are added, all other fields they replace.
        """
        before, self._variable = self._variable, {**self._variable, **fields}
        yield
        self._variable = before

    def _may_join(self) -> bool:
        """Sizes that come from registers are not known here."""
        return not self._variable

    def stream(self, at: Address, size: int, sink: Port = Port.LXE) -> None:
        """Moves so many bytes to the LXE or the DRE as if they were one row."""
        whole, rest = divmod(size, ROW_BYTES)
        if whole:
            self.move(Port.MEMORY, sink, at, bytes=ROW_BYTES, pitch=ROW_BYTES, rows=whole)
        if rest:
            self.move(Port.MEMORY, sink, at + whole * ROW_BYTES, bytes=rest)

    def load(self, values: np.ndarray, target: Tensor | None = None) -> Tensor:
        """As `Assembler.load`; what `keep` has loaded is not loaded again."""
        if target is None and (kept := self._kept.get(_identity(values))):
            return kept
        return super().load(values, target)

    def keep(self, values: np.ndarray) -> Tensor:
        """Loads values that stay in the LXE's memory: `load` gives the same tensor from here on."""
        self._kept[_identity(values)] = tensor = self.load(values)
        return tensor

    def receive(self, target: Tensor) -> None:
        """A LOAD to a tensor, after whose moves it must come."""
        length = target.length * (1 if target.bf16 else 2)
        lines = -(-length // self.config.dpe.inputs)
        self._add(
            LxeInstruction(
                opcode=LxeOpcode.LOAD,
                rows=target.rows,
                length=length,
                beats=target.rows * lines,
                o=target.place,
            )
        )

    def load_from(self, at: Address, pitch: int, target: Tensor) -> Tensor:
        """Rows of memory to a tensor."""
        size = target.length * (2 if target.bf16 else 4)
        self.move(Port.MEMORY, Port.LXE, at, bytes=size, pitch=pitch, rows=target.rows)
        self.receive(target)
        return target

    def stream_gemm(self, x: Tensor, at: Address, target: Tensor) -> Tensor:
        """As `gemm` by rows, with weights in memory as `vrex.model.lxe.dpe.weight_beats` gives them."""
        self._apart(target, x)
        for instruction in self._products(x, target, None, columns=False):
            self.stream(at, instruction.beats * self.config.dpe.beat_bytes)
            self._add(instruction)
        return target

    def store_repeatedly(self, source: Tensor) -> None:
        """A STORE of rows, each of them `rows` times (a field of `variable`, else 1)."""
        length = source.length * (1 if source.bf16 else 2)
        place = Operand(source.base, 0, source.stride)
        self._add(LxeInstruction(opcode=LxeOpcode.STORE, groups=source.rows, length=length, a=place))

    def assemble(self) -> list[Instruction]:
        """The program.

        Raises:
            ValueError: a label was never set.
        """
        code: list[Instruction] = []
        for instruction, label in self._code:
            if label is not None:
                if label.index is None:
                    raise ValueError(f"the label of branch {len(code)} is set nowhere")
                assert isinstance(instruction.body, Control)
                instruction = replace(instruction, body=replace(instruction.body, immediate=label.index))
            code.append(instruction)
        return code

    def _add(self, instruction: LxeInstruction, payload: np.ndarray | None = None) -> None:
        if payload is not None:
            data = payload.astype("<u2").tobytes()
            self.stream(Address(self.pool.add(data)), len(data))
        patches = []
        for name, register in self._variable.items():
            operand, _, part = name.rpartition(".")
            changed: dict[str, Any] = {name: register.plus}
            if operand:
                place = getattr(instruction, operand)
                changed = {operand: replace(place, **{part: getattr(place, part) + register.plus})}
            instruction = replace(instruction, **changed)
            patches.append(Patch(*_place(LXE_INSTRUCTION, name), register.number))
        self._emit(Opcode.LXE, instruction, tuple(patches))

    def _at(self, opcode: Opcode, body: Control, address: Address) -> None:
        self._emit(opcode, replace(body, address=address.constant), tuple(address.patches(CONTROL)))

    def _emit(
        self,
        opcode: Opcode,
        body: Control | Move | LxeInstruction | Descriptor,
        patches: tuple[Patch, ...] = (),
        label: Label | None = None,
    ) -> None:
        if len(patches) > PATCHES:
            raise ValueError(f"an instruction has room for {PATCHES} registers, not {len(patches)}")
        self._code.append((Instruction(opcode, body, patches), label))


def _bare(register: Register) -> int:
    """The number of a register to which nothing is added.

    Raises:
        ValueError: something is.
    """
    if register.plus:
        raise ValueError(f"an instruction of control takes a register as it is, not {register}")
    return register.number


def _split(fields: Mapping[str, Value], layout: Layout) -> tuple[dict[str, int], list[Patch]]:
    """Constants of all fields, and patches of those that are registers."""
    constants, patches = {}, []
    for name, value in fields.items():
        if isinstance(value, Register):
            patches.append(Patch(*_place(layout, name), value.number))
            value = value.plus
        constants[name] = value
    return constants, patches


def _identity(values: np.ndarray) -> bytes:
    return repr((values.shape, values.dtype.str)).encode() + values.tobytes()
