"""The multipliers of attention, shared by q.k and w.v."""

from __future__ import annotations

from amaranth import Module, Mux, Shape, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..fp import delay, register
from .shape import DOT_BITS, SUM_BITS, WEIGHT_BITS, AttentionShape


class MacRow(Component):
    """`dims` multipliers of one query row.

    With `v` low: products of codes `q` and `b` (int16, lane 0 lowest) are summed over the lanes
    and accumulated in `dot`. With `v` high: products of `weight` (unsigned) and each lane of `b`
    accumulate in `sums`, a signed integer a lane. `first` begins a new sum.

    One step a cycle where `en` is high; `dot` holds it DOT_LATENCY cycles later, `sums`
    SUM_LATENCY cycles later, until the next step of the kind. Sums are exact. No reset.
    """

    SUM_LATENCY = 4

    def __init__(self, dims: int) -> None:
        self._dims = dims
        self.dot_latency = 4 + (dims - 1).bit_length()
        super().__init__(
            {
                "en": In(1),
                "v": In(1),
                "first": In(1),
                "q": In(data.ArrayLayout(signed(16), dims)),
                "weight": In(WEIGHT_BITS),
                "b": In(data.ArrayLayout(signed(16), dims)),
                "dot": Out(signed(DOT_BITS)),
                "sums": Out(data.ArrayLayout(signed(SUM_BITS), dims)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = []
        for lane in range(self._dims):
            left = Signal(signed(WEIGHT_BITS + 1), reset_less=True)
            m.d.sync += left.eq(Mux(self.v, self.weight, self.q[lane]))
            right = register(m, self.b[lane])
            products.append(delay(m, left * right, 2, reset_less=True))

        sum_en, sum_first = delay(m, self.en & self.v, 3), delay(m, self.first, 3)
        for lane, product in enumerate(products):
            total = Signal(signed(SUM_BITS), reset_less=True)
            with m.If(sum_en):
                m.d.sync += total.eq(Mux(sum_first, 0, total) + product)
            m.d.comb += self.sums[lane].eq(total)

        level = [product[:32].as_signed() for product in products]
        depth = 0
        while len(level) > 1:
            level = [register(m, a + b) for a, b in zip(level[::2], level[1::2], strict=True)]
            depth += 1
        dot_en = delay(m, self.en & ~self.v, 3 + depth)
        dot_first = delay(m, self.first, 3 + depth)
        dot = Signal(Shape(DOT_BITS, signed=True), reset_less=True)
        with m.If(dot_en):
            m.d.sync += dot.eq(Mux(dot_first, 0, dot) + level[0])
        m.d.comb += self.dot.eq(dot)
        return m


class Mac(Component):
    """`rows` MacRows on the same K or V word: each row its own codes and weight.

    Latencies, throughput and number formats as MacRow's.
    """

    SUM_LATENCY = MacRow.SUM_LATENCY

    def __init__(self, shape: AttentionShape) -> None:
        self._rows = [MacRow(shape.dims) for _ in range(shape.rows)]
        self.dot_latency = self._rows[0].dot_latency
        row = self._rows[0].signature.members
        super().__init__(
            {
                "en": In(1),
                "v": In(1),
                "first": In(1),
                "q": In(data.ArrayLayout(row["q"].shape, shape.rows)),
                "weight": In(data.ArrayLayout(WEIGHT_BITS, shape.rows)),
                "b": In(row["b"].shape),
                "dot": Out(data.ArrayLayout(signed(DOT_BITS), shape.rows)),
                "sums": Out(data.ArrayLayout(row["sums"].shape, shape.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for a, row in enumerate(self._rows):
            m.submodules[f"row{a}"] = row
            m.d.comb += [
                row.en.eq(self.en),
                row.v.eq(self.v),
                row.first.eq(self.first),
                row.q.eq(self.q[a]),
                row.weight.eq(self.weight[a]),
                row.b.eq(self.b),
                self.dot[a].eq(row.dot),
                self.sums[a].eq(row.sums),
            ]
        return m
