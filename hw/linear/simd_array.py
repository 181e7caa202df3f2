"""The table-lookup array of a part with SIMD adders: P token lanes by Q weight rows of lanes.

Entries that are added later are looked up later and written later (skew.py): a delay line runs
along the tables, through which their indices, activations and entry numbers pass.
"""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component

from ..config import AcceleratorConfig
from ..fp import delay
from ..modules import ModuleLibrary
from . import tables
from .array import array_signature
from .simd_lanes import DspLanes, SimdLanes, write_addresses
from .skew import TOKENS, skew
from .tables import TableBuilder

BUILD_LATENCY = tables.LATENCY + 1
"""Cycles from `digits` to the write of the entry in the tables of delay 0."""
_LANES, _TABLES = "terntable_lanes", "terntable_tables"


def latency(config: AcceleratorConfig) -> int:
    """Cycles from an index word to its sums."""
    return 1 + skew(config).latency


class SimdArray(Component):
    """Builds the tables of P tokens and looks a word of indices up in them.

    Ports: see array_signature. Entry `address` with `digits` is computed and written in the tables
    BUILD_LATENCY cycles later, or later by their delay, as is all that belongs to them. A word
    given BUILD_LATENCY cycles before an entry's write, or earlier, does not see it; from
    BUILD_LATENCY - 2 on it does; between it must not be given.

    With a library, lanes and builders are placed modules; without one they are submodules.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = config
        self._library = library
        super().__init__(array_signature(config))

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        slices = skew(c).slices
        lanes = self._lanes(m)

        # Where an index is the write address, it is that in the cycle of the write, the next one.
        writes = delay(m, self.build, BUILD_LATENCY - 1)
        address = delay(m, self.address, BUILD_LATENCY - 1, reset_less=True)
        addressing = write_addresses(c)
        index = {}
        for n in range(c.rows * c.tables):
            word = self.index.word_select(n, c.index_bits)
            index[n] = Mux(writes, address, word) if addressing[n % c.tables] else word

        digits, load = self.digits, self.load
        inputs = {
            t: self.activations.as_value().word_select(t, 8 * c.group) for t in range(c.tables)
        }
        enables = []
        for number, here in enumerate(slices):
            # The delay line's next step: what belongs to these tables and to later ones.
            there = [t for later in slices[number:] for t in later]
            writes = delay(m, writes, 1)
            enables.append(writes)
            index = _step(m, {n: index[n] for n in index if n % c.tables in there})
            if number:
                digits, load = delay(m, digits, 1, reset_less=True), delay(m, load, 1)
                inputs = _step(m, {t: inputs[t] for t in there})

            if self._library is not None:
                self._library.register(f"{_TABLES}{len(here)}", TableBuilder(c, len(here)))
            for p in range(c.tokens):
                entries = self._build(m, here, p, number, load[p], inputs, digits)
                for q in range(c.rows):
                    block = lanes[p // TOKENS, q]
                    for t, entry in zip(here, entries, strict=True):
                        m.d.comb += block.write_data[t][p % TOKENS].eq(entry)
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

    def _build(
        self, m: Module, here: list[int], p: int, number: int, load: Value,
        inputs: dict[int, Value], digits: Value,
    ) -> list[Value]:  # fmt: skip
        """Entries of some tables of a token lane, from the activations that `load` takes."""
        c, library = self._config, self._library
        name = f"{_TABLES}{len(here)}"
        builder = TableBuilder(c, len(here)) if library is None else library.place(name)
        m.submodules[f"tables{p}_{number}"] = builder
        activations = Signal.like(
            builder.activations, name=f"activations{p}_{number}", reset_less=True
        )
        with m.If(load):
            m.d.sync += activations.eq(Cat(inputs[t] for t in here))
        entries = Signal.like(builder.entries, name=f"entries{p}_{number}", reset_less=True)
        m.d.sync += entries.eq(builder.entries)
        m.d.comb += [builder.activations.eq(activations), builder.digits.eq(digits)]
        return list(entries)


def _step(m: Module, values: dict[int, Value]) -> dict[int, Value]:
    """`values` a cycle later, in registers with a reset, which no tool makes into LUTs."""
    later = Signal(sum(map(len, values.values())))
    m.d.sync += later.eq(Cat(values.values()))
    steps, at = {}, 0
    for key, value in values.items():
        steps[key] = later[at : at + len(value)]
        at += len(value)
    return steps
