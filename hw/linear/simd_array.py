"""The table-lookup array of a part with SIMD adders: P token lanes by Q weight rows of lanes.

Entries that are added later are looked up later and written later (skew.py): a delay line runs
along the tables, through which their indices, activations and entry numbers pass.
"""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component

from ..config import AcceleratorConfig
from ..fp import delay
from ..modules import ModuleLibrary
from ..primitives.simd_accumulator import step_layout
from . import table_walker
from .array import array_signature
from .simd_lanes import DspLanes, SimdLanes, write_addresses
from .skew import TOKENS, skew
from .table_walker import DspTableWalker, TableWalker
from .walk import KEEP, walk

BUILD_LATENCY = 1 + table_walker.LATENCY
"""Cycles from `build` to the write of the entry in the tables of delay 0."""
_LANES, _TABLES = "terntable_lanes", "terntable_tables"


def load_cycles(config: AcceleratorConfig) -> int:
    """Cycles that a `load` takes: a third activation comes in through the port of another."""
    return config.group - 1


def latency(config: AcceleratorConfig) -> int:
    """Cycles from an index word to its sums."""
    return 1 + skew(config).latency


class SimdArray(Component):
    """Builds the tables of P tokens and looks a word of indices up in them.

    Ports: see array_signature; `digits` and `address` are not used: the tables are built in the
    order of walk.walk. `load` is not high in two cycles within load_cycles(). An entry is written
    BUILD_LATENCY cycles after the cycle of `build` in which its turn comes, or later by the delay
    of its table, as is all that belongs to a table. A word given BUILD_LATENCY cycles before an
    entry's write, or earlier, does not see it; from BUILD_LATENCY - 2 on it does; between it must
    not be given (any time for the other buffer).

    With a library, lanes and builders are placed modules; without one they are submodules.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = config
        self._library = library
        super().__init__(array_signature(config))

    def elaborate(self, platform: object) -> Module:
        c = self._config
        library = self._library
        m = Module()
        slices = skew(c).slices
        lanes = self._lanes(m)

        # Where an index is the write address, it is that in the cycle of the write, the next one.
        step, entry = self._walk(m)
        writes = delay(m, self.build, BUILD_LATENCY - 1)
        entry = delay(m, entry, BUILD_LATENCY - 2, reset_less=True)
        addressing = write_addresses(c)
        banked = c.table_buffers == 2
        if banked:
            entry = Cat(entry, delay(m, self.build_bank, BUILD_LATENCY - 1, reset_less=True))
        index = {}
        for n in range(c.rows * c.tables):
            word = self.index.word_select(n, c.index_bits)
            if banked:
                word = Cat(word, self.index_bank)
            index[n] = Mux(writes, entry, word) if addressing[n % c.tables] else word

        operands, take, again = self._operands(m)
        enables = []
        for number, here in enumerate(slices):
            # The delay line's next step: what belongs to these tables and to later ones.
            there = [t for later in slices[number:] for t in later]
            writes = delay(m, writes, 1)
            enables.append(writes)
            if banked:
                entry = delay(m, entry, 1, reset_less=True)
                for block in lanes.values():
                    m.d.comb += block.write_address[number].eq(entry)
            index = _step(m, {n: index[n] for n in index if n % c.tables in there})
            if number:
                step = delay(m, step, 1, reset_less=True)
                take, again = delay(m, take, 1), delay(m, again, 1)
                operands = _step(m, {t: operands[t] for t in there})

            name = f"{_TABLES}{len(here)}"
            shape = (c, len(here))
            if library is not None and len(here) not in map(len, slices[:number]):
                library.register(name, TableWalker(*shape), DspTableWalker(*shape))
            for p in range(c.tokens):
                builder = TableWalker(*shape) if library is None else library.place(name)
                m.submodules[f"tables{p}_{number}"] = builder
                m.d.comb += [
                    builder.take.eq(take[p]),
                    builder.again.eq(again[p]),
                    builder.step.eq(step),
                ]
                for place, t in enumerate(here):
                    m.d.comb += Cat(builder.a[place], builder.c[place]).eq(operands[t])
                    for q in range(c.rows):
                        entries = lanes[p // TOKENS, q].write_data[t]
                        m.d.comb += entries[p % TOKENS].eq(builder.entries[place])
            for (_, q), block in lanes.items():
                m.d.comb += [block.index[t].eq(index[q * c.tables + t]) for t in here]
        m.d.comb += [block.write_en.eq(Cat(enables)) for block in lanes.values()]
        return m

    def _lanes(self, m: Module) -> dict[tuple[int, int], SimdLanes]:
        """Blocks by four token lanes and row, with their accumulators."""
        c, library = self._config, self._library
        if library is not None:
            library.register(_LANES, SimdLanes(c), DspLanes(c))
        lanes = {}
        for four in range(c.tokens // TOKENS):
            for q in range(c.rows):
                block = SimdLanes(c) if library is None else library.place(_LANES)
                m.submodules[f"lanes{four}_{q}"] = lanes[four, q] = block
                m.d.comb += block.use_old.eq(self.use_old)
                for token in range(TOKENS):
                    place = (four * TOKENS + token) * c.rows + q
                    m.d.comb += [
                        block.old[token].eq(self.old[place]),
                        self.sums[place].eq(block.sums[token]),
                    ]
        return lanes

    def _walk(self, m: Module) -> tuple[data.View, Signal]:
        """The step of the walk, and the entry that it leads to, a cycle after `build`."""
        steps = walk(self._config.group)
        layout = step_layout()
        number = Signal(range(len(steps)))
        m.d.sync += number.eq(Mux(self.build, number + 1, 0))
        step = Signal(layout, reset_less=True)
        entry = Signal(self._config.index_bits, reset_less=True)
        m.d.sync += step.eq(layout.const(KEEP))
        with m.Switch(number):
            for n, each in enumerate(steps):
                with m.Case(n):
                    m.d.sync += entry.eq(each.entry)
                    with m.If(self.build):
                        m.d.sync += step.eq(layout.const(each.step))
        return step, entry

    def _operands(self, m: Module) -> tuple[dict[int, Value], Value, Value]:
        """Operands of each table's accumulators, a beside c, with the strobes that take them, a bit
        a token lane: both, and in the next cycle a again."""
        c = self._config
        take = delay(m, self.load, 1)
        again: Value = C(0, c.tokens)
        first, second = (
            [self.activations[t * c.group + j] for t in range(c.tables)] for j in (0, 1)
        )
        if load_cycles(c) > 1:
            again = delay(m, take, 1)
            held, hold = _step(m, dict(enumerate(first))), Signal()
            m.d.sync += hold.eq(self.load.any())
            for t in range(c.tables):
                first[t] = Mux(hold, held[t], self.activations[t * c.group + 2])
        operands = {t: Cat(first[t][:8], second[t]) for t in range(c.tables)}
        return _step(m, operands), take, again


def _step(m: Module, values: dict[int, Value]) -> dict[int, Value]:
    """`values` a cycle later, in registers with a reset, which no tool makes into LUTs."""
    later = Signal(sum(map(len, values.values())))
    m.d.sync += later.eq(Cat(values.values()))
    steps, at = {}, 0
    for key, value in values.items():
        steps[key] = later[at : at + len(value)]
        at += len(value)
    return steps
