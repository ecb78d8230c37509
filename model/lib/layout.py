"""Bit layouts: one table of fields each, for the packer here, the hardware's struct and the docs' table.

A layout is a little-endian number; its first field holds the lowest bits. `vrex.hw.lib.layout.struct_layout`
makes it an Amaranth struct.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Field:
    """One field of a layout.

    Attributes:
        name: unique in its layout; fields whose names begin with `reserved` are packed as 0 and not unpacked.
        shape: width in bits, or the layout of a field that has fields itself.
        meaning: one line for the docs.
        signed: two's complement.
    """

    name: str
    shape: "int | Layout"
    meaning: str = ""
    signed: bool = False

    @property
    def bits(self) -> int:
        """Width in bits."""
        return self.shape.bits if isinstance(self.shape, Layout) else self.shape

    @property
    def reserved(self) -> bool:
        """Whether the field only fills a gap."""
        return self.name.startswith("reserved")


@dataclass(frozen=True)
class Layout:
    """Fields one after another, from the lowest bit on.

    Attributes:
        name: for error messages and the docs.
        fields: in order of their bits.
    """

    name: str
    fields: tuple[Field, ...]

    @property
    def bits(self) -> int:
        """Width in bits."""
        return sum(field.bits for field in self.fields)

    @property
    def size(self) -> int:
        """Bytes that hold it."""
        return (self.bits + 7) // 8

    def places(self) -> Iterator[tuple[int, Field]]:
        """Each field after the number of its lowest bit."""
        offset = 0
        for field in self.fields:
            yield offset, field
            offset += field.bits

    def to_int(self, values: Mapping[str, Any]) -> int:
        """The number that holds the values.

        Args:
            values: an integer for each field that is not reserved, for a nested layout a mapping.

        Raises:
            struct.error: a value does not fit its field.
        """
        number = 0
        for offset, field in self.places():
            if not field.reserved:
                number |= self._encode(field, values[field.name]) << offset
        return number

    def _encode(self, field: Field, value: Any) -> int:
        """The bits of one field."""
        if isinstance(field.shape, Layout):
            return field.shape.to_int(value)
        lowest = -1 << field.bits - 1 if field.signed else 0
        if not lowest <= value < lowest + (1 << field.bits):
            kind = "signed" if field.signed else "unsigned"
            raise struct.error(f"{self.name}.{field.name}: {value} does not fit {field.bits} {kind} bits")
        return int(value) & (1 << field.bits) - 1

    def from_int(self, number: int) -> dict[str, Any]:
        """Inverse of `to_int`, without the reserved fields."""
        values: dict[str, Any] = {}
        for offset, field in self.places():
            if not field.reserved:
                values[field.name] = self._decode(field, number >> offset & (1 << field.bits) - 1)
        return values

    @staticmethod
    def _decode(field: Field, bits: int) -> Any:
        """The value of one field."""
        if isinstance(field.shape, Layout):
            return field.shape.from_int(bits)
        return bits - (1 << field.bits) if field.signed and bits >> field.bits - 1 else bits

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """`size` bytes, little-endian; arguments and errors as `to_int`."""
        return self.to_int(values).to_bytes(self.size, "little")

    def unpack(self, data: bytes) -> dict[str, Any]:
        """Inverse of `pack`.

        Raises:
            struct.error: there are not `size` bytes.
        """
        if len(data) != self.size:
            raise struct.error(f"{self.name}: {len(data)} bytes instead of {self.size}")
        return self.from_int(int.from_bytes(data, "little"))

    def pack_words(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """`to_int` of many at once, without nested layouts and without a check of the values.

        Args:
            columns: integers [n] or a mask for each field that is not reserved.

        Returns:
            uint32 [n] of a layout of at most 32 bits, else uint64 [n] of one of at most 64.
        """
        words: Any = np.uint64(0)
        for offset, field in self.places():
            if not field.reserved:
                bits = columns[field.name].astype(np.uint64) & np.uint64((1 << field.bits) - 1)
                words = words | bits << np.uint64(offset)
        return words.astype(np.uint32 if self.bits <= 32 else np.uint64)

    def unpack_words(self, words: np.ndarray) -> dict[str, np.ndarray]:
        """Inverse of `pack_words` for unsigned fields: uint64 [n] of each."""
        wide = words.astype(np.uint64)
        return {
            field.name: wide >> np.uint64(offset) & np.uint64((1 << field.bits) - 1)
            for offset, field in self.places()
            if not field.reserved
        }

    def leaves(self, prefix: str = "", start: int = 0) -> Iterator[tuple[int, str, Field]]:
        """(lowest bit, dotted name, field) of each field without fields of its own."""
        for offset, field in self.places():
            name, at = prefix + field.name, start + offset
            if isinstance(field.shape, Layout):
                yield from field.shape.leaves(f"{name}.", at)
            else:
                yield at, name, field

    def table(self) -> str:
        """The docs' table in Markdown, one row a field, without nesting."""
        rows = ["| bits | field | width | meaning |", "|---|---|---|---|"]
        for low, name, field in self.leaves():
            high = low + field.bits - 1
            span = f"{high}:{low}" if field.bits > 1 else str(low)
            meaning = "0" if field.reserved else field.meaning
            rows.append(f"| {span} | `{name}` | {field.bits} | {meaning} |")
        return "\n".join(rows)
