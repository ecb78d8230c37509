"""Instances of components whose modules are emitted once by themselves, however often they are used."""

from typing import Any

from amaranth import ClockSignal, Instance, Module, ResetSignal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In


def instance(m: Module, name: str, module: str, members: dict[str, wiring.Member]) -> Any:
    """Adds an instance of a module, and returns the interface of its ports, to be connected.

    Args:
        m: gets it.
        name: of the instance.
        module: the module's name.
        members: of the component that it is made of.
    """
    signature = wiring.Signature(members)
    interface = signature.create(path=(name,))
    ports = {}
    # amaranth-stubs has a flow in a member's place.
    members_and_values: Any = signature.flatten(interface)
    for path, member, value in members_and_values:
        direction = "i" if member.flow == In else "o"
        ports[f"{direction}_{'__'.join(map(str, path))}"] = Value.cast(value)
    m.submodules[name] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    return interface
