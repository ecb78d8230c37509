"""Amaranth structs of the layouts that model, benches and docs share (`vrex.model.lib.layout`)."""

from amaranth import signed
from amaranth.hdl import Shape
from amaranth.lib import data

from vrex.model.lib.layout import Layout


def struct_layout(layout: Layout) -> data.StructLayout:
    """The layout as an Amaranth struct: the same fields, the first in the lowest bits."""
    members: dict[str, data.StructLayout | Shape | int] = {}
    for field in layout.fields:
        if isinstance(field.shape, Layout):
            members[field.name] = struct_layout(field.shape)
        else:
            members[field.name] = signed(field.shape) if field.signed else field.shape
    return data.StructLayout(members)
