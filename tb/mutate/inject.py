"""What an instrumented source calls, and the import hook that instruments the sources.

All wanted mutants become one design: an instance `SELECTOR` gives the number of the mutant that is on, 0 for
none, and at every mutated place a multiplexer or a condition looks at it. So one simulator runs all mutants.
With `Wanted.alone` the design is that mutant's itself.
"""

import importlib.abc
import importlib.machinery
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any

from amaranth import Const, Instance, Module, Mux, Signal
from amaranth.hdl import Shape, Value

from vrex.tb.mutate.points import HELPER, instrument

SELECTOR = "vrex_mutant"
"""Verilog module with the number of the mutant that is on."""

NUMBER_BITS = 16


@dataclass
class Wanted:
    """Which mutants the design gets.

    Attributes:
        numbers: of each, by name.
        alone: name of the only one, built in for good.
        reached: names of all that would change hardware, in the order in which it is made.
        number: signal with the number of the one that is on.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    alone: str | None = None
    reached: dict[str, None] = field(default_factory=dict)
    number: Signal = field(default_factory=lambda: Signal(NUMBER_BITS, name="mutant"))


wanted = Wanted()
"""Of the design that is made now."""


def begin(numbers: Mapping[str, int] | None = None, alone: str | None = None) -> Wanted:
    """Says what the next design gets."""
    wanted.numbers, wanted.alone = numbers or {}, alone
    wanted.reached.clear()
    return wanted


def with_selector(component: Any) -> Any:
    """A component whose module also holds the instance of `SELECTOR`."""
    elaborate = component.elaborate

    def elaborate_with_selector(platform: Any) -> Module:
        m: Module = elaborate(platform)
        if wanted.numbers:
            m.submodules[SELECTOR] = Instance(SELECTOR, o_number=wanted.number)
        return m

    component.elaborate = elaborate_with_selector
    return component


def _chosen(names: Sequence[str], original: Any, variants: Sequence[Callable[[], Any]]) -> Any:
    """The original or one of its mutants, of the original's shape."""
    for name in names:
        wanted.reached[name] = None
    result = original
    for name, variant in zip(names, variants, strict=True):
        if name == wanted.alone:
            return _fitted(Const(1), variant(), original)
        if name in wanted.numbers:
            result = _fitted(wanted.number == wanted.numbers[name], variant(), result)
    return result


def _fitted(on: Any, mutated: Any, original: Any) -> Value:
    """A multiplexer of the original's shape."""
    original = Value.cast(original)
    shape = original.shape()
    either = Mux(on, mutated, original)
    if either.shape() == shape:
        return either
    return either[: shape.width].as_signed() if shape.signed else either[: shape.width]


def _is_hardware(value: Any) -> bool:
    return isinstance(value, Value) and len(value) > 0


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "+": operator.add,
    "-": operator.sub,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SWAPS = {"&": "|", "+": "-", "==": "!=", "<": "<=", ">": ">="}
SWAPS |= {other: symbol for symbol, other in SWAPS.items()}


def binary(names: Sequence[str], symbol: str, left: Any, right: Any) -> Any:
    """`left symbol right`."""
    original = OPERATORS[symbol](left, right)
    if not _is_hardware(original):
        return original
    variants: dict[str, Callable[[], Any]] = {
        "left": lambda: left,
        "right": lambda: right,
        "swap": lambda: OPERATORS[SWAPS[symbol]](left, right),
        "more": lambda: OPERATORS[symbol](left, right + 1),
    }
    kinds = {
        "&": ("left", "right", "swap"),
        "|": ("left", "right", "swap"),
        "^": ("left", "right"),
        "+": ("left", "swap"),
        "-": ("left", "swap"),
        "<<": ("left",),
        ">>": ("left",),
        "==": ("swap", "more"),
        "!=": ("swap", "more"),
    }.get(symbol, ("swap",))
    if "more" in kinds and not _has_next(right):
        names, kinds = names[:1], kinds[:1]
    return _chosen(names, original, [variants[kind] for kind in kinds])


def _has_next(value: Any) -> bool:
    """Whether a value plus one makes sense: a number, not a member of an enumeration."""
    return isinstance(value, Value) or type(value) is int


def invert(names: Sequence[str], value: Any) -> Any:
    """`~value`."""
    original = ~value
    return _chosen(names, original, [lambda: value]) if _is_hardware(original) else original


def mux(names: Sequence[str], condition: Any, first: Any, second: Any) -> Any:
    """`Mux(condition, first, second)`."""
    original = Mux(condition, first, second)
    return _chosen(names, original, [lambda: first, lambda: second]) if _is_hardware(original) else original


def condition(names: Sequence[str], value: Any) -> Any:
    """The condition of an If or Elif."""
    return _chosen(names, Value.cast(value).bool(), [lambda: Const(1, 1), lambda: Const(0, 1)])


def constant(names: Sequence[str], value: int) -> Any:
    """A whole number that is assigned."""
    for name in names:
        wanted.reached[name] = None
        if name == wanted.alone:
            return value ^ 1
        if name in wanted.numbers:
            shape = Shape.cast(range(min(value, value ^ 1), max(value, value ^ 1) + 1))
            return Mux(wanted.number == wanted.numbers[name], Const(value ^ 1, shape), Const(value, shape))
    return value


def reduce(names: Sequence[str], method: str, value: Any) -> Any:
    """`value.any()` or `value.all()`."""
    original = getattr(value, method)()
    if not _is_hardware(original):
        return original
    return _chosen(names, original, [getattr(value, "all" if method == "any" else "any")])


def add(m: Module, domain: str, *parts: tuple[Sequence[str], Any]) -> None:
    """`m.d[domain] += [...]`: each part is a name and an assignment or several of them."""
    for (name,), statements in parts:
        if isinstance(statements, Iterable):
            statements = list(statements)
            if not statements:
                continue
        wanted.reached[name] = None
        if name == wanted.alone:
            continue
        if name in wanted.numbers:
            with m.If(wanted.number != wanted.numbers[name]):
                m.d[domain] += statements
        else:
            m.d[domain] += statements


def go(names: Sequence[str], m: Any, state: str) -> None:
    """`m.next = state`."""
    (name,) = names
    wanted.reached[name] = None
    if name in wanted.numbers:
        with m.If(wanted.number != wanted.numbers[name]):
            m.next = state
    elif name != wanted.alone:
        m.next = state


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the instrumented source, and keeps no bytecode of it."""

    def __init__(self, fullname: str, path: str, file: str) -> None:
        super().__init__(fullname, path)
        self._file = file

    def get_code(self, fullname: str) -> CodeType:
        """The code of the instrumented source."""
        path = self.get_filename(fullname)
        tree, _ = instrument(self.get_data(path).decode(), self._file)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module what its source calls."""
        setattr(module, HELPER, sys.modules[__name__])
        super().exec_module(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the instrumented form of some modules; others stay as they are.

    Args:
        files: source of each module, as in the mutants' names.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec with a loader that instruments it."""
        if fullname not in self._files:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._files[fullname])
        return spec


def install(files: Mapping[str, str]) -> None:
    """From now on these modules are imported in their instrumented form."""
    loaded = sorted(set(files) & set(sys.modules))
    if loaded:
        raise RuntimeError(f"already imported: {', '.join(loaded)}")
    sys.meta_path.insert(0, Finder(files))
