"""Tables that are written at one address and read at one each: LUTRAM, packed by columns."""

from __future__ import annotations

from amaranth import C, Cat, ClockSignal, Instance, Module, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Member, Out

ADDRESS_BITS = 5
"""Address bits of a RAM32M16."""
_READ_ONLY = "ABCDEFG"
"""Columns of a RAM32M16, two bits wide, that have a read address of their own. The eighth, H, is
read at the address that all are written at."""


def primitives(tables: int, width: int) -> int:
    """RAM32M16s of `tables` tables, `width` bits wide."""
    return -(-tables * _columns(width) // (len(_READ_ONLY) + 1))


def address_tables(tables: int, width: int) -> int:
    """How many tables, the first ones, have columns H: their index is the write address."""
    return -(-primitives(tables, width) // _columns(width))


def _columns(width: int) -> int:
    return -(-width // 2)


class TableMemory(Component):
    """Tables of 2**address_bits entries.

    index: an address a table, to which `entries` belong in the same cycle. write_en: the entries at
    index[0] of all tables become `data` at the end of the cycle. No reset.

    This form describes the behaviour. Where address_bits <= ADDRESS_BITS, Ram32m16TableMemory has
    the same ports, wants the first address_tables() indices to be equal while write_en, and takes
    primitives() RAM32M16s of 8 LUTs: a memory for each table would take one for 14 bits.
    """

    def __init__(
        self, tables: int, width: int, address_bits: int, more: dict[str, Member] | None = None
    ) -> None:
        """more: ports of a memory that has others besides."""
        self._tables, self._width, self._address_bits = tables, width, address_bits
        super().__init__(
            {
                **(more or {}),
                "write_en": In(1),
                "index": In(data.ArrayLayout(unsigned(address_bits), tables)),
                "data": In(data.ArrayLayout(unsigned(width), tables)),
                "entries": Out(data.ArrayLayout(unsigned(width), tables)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for t in range(self._tables):
            m.submodules[f"table{t}"] = memory = Memory(
                shape=unsigned(self._width),
                depth=1 << self._address_bits,
                init=[],
                attrs={"ram_style": "distributed"},
            )
            write, look_up = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.write_en),
                write.addr.eq(self._written_at()),
                write.data.eq(self.data[t]),
                look_up.addr.eq(self.index[t]),
                self.entries[t].eq(look_up.data),
            ]
        return m

    def _written_at(self) -> Value:
        return self.index[0]


class Ram32m16TableMemory(TableMemory):
    """The same of RAM32M16s."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pairs = _columns(self._width)
        left = [(table, pair) for table in range(self._tables) for pair in range(pairs)]
        # The first columns are those of the tables whose index is a write address.
        count = primitives(self._tables, self._width)
        shared, left = left[:count], left[count:]
        for number, column in enumerate(shared):
            columns = dict(zip(_READ_ONLY, left, strict=False)) | {"H": column}
            left = left[len(columns) - 1 :]
            ports: dict[str, Value] = {"i_WCLK": ClockSignal("sync"), "i_WE": self.write_en}
            for letter in (*_READ_ONLY, "H"):
                if letter not in columns:
                    ports[f"i_ADDR{letter}"] = C(0, ADDRESS_BITS)
                    ports[f"i_DI{letter}"] = C(0, 2)
                    continue
                table, pair = columns[letter]
                bits = slice(2 * pair, min(2 * pair + 2, self._width))
                written = self.data[table][bits]
                ports[f"i_ADDR{letter}"] = Cat(
                    self.index[table], C(0, ADDRESS_BITS - self._address_bits)
                )
                ports[f"i_DI{letter}"] = Cat(written, C(0, 2 - len(written)))
                ports[f"o_DO{letter}"] = self.entries[table][bits]
            m.submodules[f"ram{number}"] = Instance("RAM32M16", **ports)
        return m


class BufferedTableMemory(TableMemory):
    """The same, looked up in while entries are written: at write_address, not at index[0].

    A memory a table, which tools make LUTRAM of: with a write address of its own none of its
    columns can be read for another.
    """

    def __init__(self, tables: int, width: int, address_bits: int) -> None:
        super().__init__(tables, width, address_bits, {"write_address": In(address_bits)})

    def _written_at(self) -> Value:
        return self.write_address
