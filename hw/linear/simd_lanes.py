"""Four token lanes of a weight row, up to their accumulators."""

from __future__ import annotations

from amaranth import C, Module, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from ..fp import delay
from ..primitives.simd_adder import DspSimdAdder
from ..primitives.table_memory import (
    BufferedTableMemory,
    Ram32m16TableMemory,
    TableMemory,
    address_tables,
)
from .array import accumulate
from .skew import TOKENS, skew


def write_addresses(config: AcceleratorConfig) -> list[bool]:
    """Of each table, whether its index has to be the write address while entries are written: of
    none where other tables are looked up in meanwhile."""
    addressing = [False] * config.tables
    if config.table_buffers == 2:
        return addressing
    for tables in skew(config).slices:
        for table in tables[: address_tables(len(tables), TOKENS * config.table_bits)]:
            addressing[table] = True
    return addressing


class SimdLanes(Component):
    """Looks T indices up in the tables of four tokens, and adds the entries to `old`.

    Everything that belongs to a table comes later by its delay (skew.Skew), whatever the cycles
    below. index: T indices, read in the cycle they are given. write_en: bit d writes an entry of
    the tables of delay d: write_data[table][token] (signed table_bits each), visible from the next
    cycle; meanwhile the index of those tables that write_addresses() names must be its address,
    and an index of another means nothing. With two buffers of tables the buffer's number is the
    highest bit of an index, and write_address[d] is that of the tables of delay d. old: signed
    accumulators of the tokens, OLD_LATENCY cycles before the sums; zero is taken for them without
    use_old. sums: Skew.latency cycles after the indices of delay 0; they wrap at acc_bits. One row
    a cycle, no back-pressure. Nothing is reset.

    This form describes the behaviour; DspLanes has the same ports and consists of primitives,
    but for memories of two buffers, which are inferred.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        self._skew = skew(c)
        entry = data.ArrayLayout(signed(c.table_bits), TOKENS)
        accumulators = data.ArrayLayout(signed(c.acc_bits), TOKENS)
        slices = len(self._skew.slices)
        addresses = data.ArrayLayout(unsigned(c.table_address_bits), slices)
        super().__init__(
            {
                **({"write_address": In(addresses)} if c.table_buffers == 2 else {}),
                "write_en": In(slices),
                "write_data": In(data.ArrayLayout(entry, c.tables)),
                "index": In(data.ArrayLayout(unsigned(c.table_address_bits), c.tables)),
                "old": In(accumulators),
                "use_old": In(1),
                "sums": Out(accumulators),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        entries = self._memories(m, TableMemory)
        totals: list[Value] = [C(0, 1)] * TOKENS
        for number, tables in enumerate(self._skew.slices):
            for token in range(TOKENS):
                total = Signal(signed(c.acc_bits), name=f"total{number}_{token}", reset_less=True)
                m.d.sync += total.eq(sum((entries[t][token] for t in tables), totals[token]))
                totals[token] = total
        wait = self._skew.latency - 1 - len(self._skew.slices)
        for token in range(TOKENS):
            total = delay(m, totals[token], wait, reset_less=True)
            new = accumulate(m, total, self.old[token], self.use_old, str(token))
            m.d.comb += self.sums[token].eq(new)
        return m

    def _memories(self, m: Module, form: type[TableMemory]) -> list[data.View]:
        """The tables, a memory for each slice; the entries of each table, by token."""
        c = self._config
        layout = data.ArrayLayout(signed(c.table_bits), TOKENS)
        entries: dict[int, data.View] = {}
        for number, tables in enumerate(self._skew.slices):
            shape = (len(tables), TOKENS * c.table_bits, c.table_address_bits)
            memory = BufferedTableMemory(*shape) if c.table_buffers == 2 else form(*shape)
            if c.table_buffers == 2:
                m.d.comb += memory.write_address.eq(self.write_address[number])
            m.submodules[f"memory{number}"] = memory
            m.d.comb += memory.write_en.eq(self.write_en[number])
            for place, table in enumerate(tables):
                m.d.comb += [
                    memory.index[place].eq(self.index[table]),
                    memory.data[place].eq(self.write_data[table].as_value()),
                ]
                entries[table] = data.View(layout, memory.entries[place])
        return [entries[table] for table in range(c.tables)]


class DspLanes(SimdLanes):
    """The same of RAM32M16s and DSP48E2s."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = self._memories(m, Ram32m16TableMemory)

        sums: list[data.View] = []
        for number, chain in enumerate(self._skew.chains):
            cascade: Value | None = None
            for place in range(0, len(chain), 2):
                pair = chain[place : place + 2]
                adder = DspSimdAdder(TOKENS, a=len(pair) == 2, cascade=cascade is not None)
                m.submodules[f"chain{number}_{place // 2}"] = adder
                m.d.comb += adder.use_c.eq(1)
                if cascade is not None:
                    m.d.comb += adder.cascade.eq(cascade)
                for token in range(TOKENS):
                    m.d.comb += adder.c[token].eq(entries[pair[0]][token])
                    if len(pair) == 2:
                        m.d.comb += adder.a[token].eq(entries[pair[1]][token])
                cascade = adder.cascade_out
            sums.append(adder.sum)

        for half in range(TOKENS // 2):
            tokens = (2 * half, 2 * half + 1)
            cascade = None
            for place in range(len(sums) // 2 + 1):
                operands = sums[2 * place : 2 * place + 2]
                last = len(operands) < 2  # and the accumulator
                adder = DspSimdAdder(2, a=bool(operands), cascade=cascade is not None)
                m.submodules[f"wide{half}_{place}"] = adder
                m.d.comb += adder.use_c.eq(self.use_old if last else 1)
                if cascade is not None:
                    m.d.comb += adder.cascade.eq(cascade)
                for lane, token in enumerate(tokens):
                    if operands:
                        m.d.comb += adder.a[lane].eq(operands[0][token])
                    m.d.comb += adder.c[lane].eq(self.old[token] if last else operands[1][token])
                    if last:
                        m.d.comb += self.sums[token].eq(adder.sum[lane])
                cascade = adder.cascade_out
        return m
