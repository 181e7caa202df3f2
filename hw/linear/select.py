"""The select-and-add array: every activation is added, subtracted or left out.

The table-lookup array's rival, for comparison: the same words, sums and throughput, no tables and
3 cycles between sweeps instead of 3**G.
"""

from __future__ import annotations

import numpy as np
from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import NDArray

from ..config import AcceleratorConfig
from ..modules import ModuleLibrary
from .array import OLD_LATENCY, accumulate, adder_tree, array_signature, sum_bits, tree_depth

SWITCH_LATENCY = 3
"""Cycles from `build` to the first sum's terms that are made of the new activations."""
_MODULE = "terntable_select_lane"


def latency(config: AcceleratorConfig) -> int:
    """Cycles from an index word to its sums."""
    return 1 + SelectLane.latency(config) + OLD_LATENCY - 1


def reference(activations: NDArray[np.integer], index: NDArray[np.integer], group: int) -> int:
    """The sum of T * G activations times the trits of T indices."""
    digits = np.asarray(index, np.int64)[:, None] // 3 ** np.arange(group) % 3 - 1
    return int(np.asarray(activations, np.int64) @ digits.reshape(-1))


class SelectLane(Component):
    """Adds one token's activations as one weight row wants them.

    activations: tile_inputs int8. used, negative: a bit an activation. ones: the number of
    `negative` bits, tree_depth(tile_inputs) cycles later than these: an activation is inverted
    where it is to be negated, and the rows' ones are counted once for all tokens. sum: signed,
    exact, `latency` cycles after `used`; one a cycle. No reset, no back-pressure.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        super().__init__(
            {
                "activations": In(data.ArrayLayout(signed(8), c.tile_inputs)),
                "used": In(c.tile_inputs),
                "negative": In(c.tile_inputs),
                "ones": In(range(c.tile_inputs + 1)),
                "sum": Out(signed(sum_bits(c))),
            }
        )

    @staticmethod
    def latency(config: AcceleratorConfig) -> int:
        return tree_depth(config.tile_inputs) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        terms: list[Value] = []
        for n in range(self._config.tile_inputs):
            turned = self.activations[n] ^ self.negative[n].replicate(8).as_signed()
            terms.append(Mux(self.used[n], turned, 0).as_signed())
        total = adder_tree(m, terms, "sum")
        out = Signal.like(self.sum, reset_less=True)
        m.d.sync += out.eq(total + self.ones)
        m.d.comb += self.sum.eq(out)
        return m


class SelectArray(Component):
    """Adds and subtracts the activations of P tokens by the trits of a word of indices.

    Ports: see array_signature; `digits` and `address` are not used. With a library, lanes are
    placed modules; without one they are submodules.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = config
        self._library = library
        super().__init__(array_signature(config))

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        if self._library is not None:
            self._library.register(_MODULE, SelectLane(c))

        # Each row's trits, decoded once for all tokens.
        rows: list[tuple[Signal, Signal, Value]] = []
        for q in range(c.rows):
            used = Signal(c.tile_inputs, name=f"used{q}", reset_less=True)
            negative = Signal(c.tile_inputs, name=f"negative{q}", reset_less=True)
            for t in range(c.tables):
                group = slice(t * c.group, (t + 1) * c.group)
                index = self.index.word_select(q * c.tables + t, c.index_bits)
                with m.Switch(index):
                    for value in range(3**c.group):
                        trits = [value // 3**j % 3 - 1 for j in range(c.group)]
                        with m.Case(value):
                            m.d.sync += [
                                used[group].eq(sum((d != 0) << j for j, d in enumerate(trits))),
                                negative[group].eq(sum((d < 0) << j for j, d in enumerate(trits))),
                            ]
            ones = adder_tree(m, [negative[n] for n in range(c.tile_inputs)], f"ones{q}_")
            rows.append((used, negative, ones))

        # The lanes change over when the last word of the sweep before has left `used`.
        build = self.build
        for stage in range(SWITCH_LATENCY - 1):
            build_next = Signal(name=f"build{stage}")
            m.d.sync += build_next.eq(build)
            build = build_next
        for p in range(c.tokens):
            loaded = Signal.like(self.activations, name=f"loaded{p}", reset_less=True)
            current = Signal.like(self.activations, name=f"current{p}", reset_less=True)
            with m.If(self.load[p]):
                m.d.sync += loaded.eq(self.activations)
            with m.If(build):
                m.d.sync += current.eq(loaded)
            for q, (used, negative, ones) in enumerate(rows):
                lane = SelectLane(c) if self._library is None else self._library.place(_MODULE)
                m.submodules[f"lane{p}_{q}"] = lane
                place = p * c.rows + q
                total = accumulate(m, lane.sum, self.old[place], self.use_old, f"{p}_{q}")
                m.d.comb += [
                    lane.activations.eq(current),
                    lane.used.eq(used),
                    lane.negative.eq(negative),
                    lane.ones.eq(ones),
                    self.sums[place].eq(total),
                ]
        return m
