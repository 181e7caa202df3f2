"""The multipliers of a query row: dot products with K, and weighted sums of V."""

from __future__ import annotations

from amaranth import Module, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..fp import delay
from ..primitives import mac
from ..primitives.mac import Mac
from .shape import SUM_BITS, WEIGHT_BITS, AttentionShape


class DotRow(Component):
    """Dot products of a row's codes with `positions` words of K, `dims` products each.

    The products of a position are added along a chain of multipliers, so a word comes skewed: lane
    i of `q` and of `k` i cycles after lane 0, of `k` a cycle earlier where shape.is_late. A word of
    Q is taken in the cycle of `take`, to wait, and meets the words of K from that of the cycle of
    `move` on (both for lane 0). `dot` is there LATENCY cycles after lane 0 of `k`. To it is added,
    where `add` is high, `partial`: both are given ADD_DELAY cycles after lane 0. Exact integers;
    one word a cycle. No back-pressure, no reset.
    """

    def __init__(self, shape: AttentionShape, cell: type[Mac] = Mac) -> None:
        self._shape, self._cell = shape, cell
        dots = data.ArrayLayout(signed(shape.dot_bits), shape.positions)
        codes = data.ArrayLayout(signed(16), shape.dims)
        super().__init__(
            {
                "q": In(codes),
                "take": In(1),
                "move": In(1),
                "k": In(data.ArrayLayout(codes, shape.positions)),
                "partial": In(dots),
                "add": In(1),
                "dot": Out(dots),
            }
        )

    @staticmethod
    def add_delay(shape: AttentionShape) -> int:
        """Cycles from lane 0 of K to `add` and `partial`."""
        return shape.dims - 1 + mac.LATENCY - mac.THIRD_LATENCY

    @staticmethod
    def latency(shape: AttentionShape) -> int:
        """Cycles from lane 0 of K to the dot products."""
        return shape.dims - 1 + mac.LATENCY

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dims = self._shape.dims
        take, move = [self.take], [self.move]
        for _ in range(dims - 1):
            take.append(delay(m, take[-1], 1, reset_less=True))
            move.append(delay(m, move[-1], 1, reset_less=True))
        for x in range(self._shape.positions):
            before = None
            for i in range(dims):
                last = i == dims - 1
                cell = self._cell(
                    held=True,
                    late=self._shape.is_late(i),
                    cascade=i != 0,
                    third="c" if last else "none",
                )
                m.submodules[f"cell{x}_{i}"] = cell
                m.d.comb += [
                    cell.a.eq(self.q[i]),
                    cell.take.eq(take[i]),
                    cell.move.eq(move[i]),
                    cell.b.eq(self.k[x][i]),
                ]
                if before is not None:
                    m.d.comb += cell.cascade.eq(before.cascade_out)
                if last:
                    m.d.comb += [
                        cell.c.eq(self.partial[x]),
                        cell.use_third.eq(self.add),
                        self.dot[x].eq(cell.sum),
                    ]
                before = cell
        return m


class SumRow(Component):
    """Sums over positions of a row's weights times the words of V, for `dims` dimensions.

    The products of `positions` positions are added along a chain of multipliers: `weight` and `v`
    of position x come x cycles after those of position 0. `sums` is, LATENCY cycles after position
    0's, the sum of this word and of those in the cycles before it, back to one whose `add` is low;
    `add` is given ADD_DELAY cycles after position 0. Exact integers; one word of each position a
    cycle. No back-pressure, no reset.
    """

    def __init__(self, shape: AttentionShape, cell: type[Mac] = Mac) -> None:
        self._shape, self._cell = shape, cell
        codes = data.ArrayLayout(signed(16), shape.dims)
        super().__init__(
            {
                "weight": In(data.ArrayLayout(WEIGHT_BITS, shape.positions)),
                "v": In(data.ArrayLayout(codes, shape.positions)),
                "add": In(1),
                "sums": Out(data.ArrayLayout(signed(SUM_BITS), shape.dims)),
            }
        )

    @staticmethod
    def add_delay(shape: AttentionShape) -> int:
        """Cycles from position 0 to `add`."""
        return shape.positions - 1 + mac.LATENCY - mac.THIRD_LATENCY

    @staticmethod
    def latency(shape: AttentionShape) -> int:
        """Cycles from position 0 to the sums."""
        return shape.positions - 1 + mac.LATENCY

    def elaborate(self, platform: object) -> Module:
        m = Module()
        positions = self._shape.positions
        for i in range(self._shape.dims):
            before = None
            for x in range(positions):
                last = x == positions - 1
                cell = self._cell(cascade=x != 0, third="p" if last else "none")
                m.submodules[f"cell{i}_{x}"] = cell
                m.d.comb += [cell.a.eq(self.weight[x]), cell.b.eq(self.v[x][i])]
                if before is not None:
                    m.d.comb += cell.cascade.eq(before.cascade_out)
                if last:
                    m.d.comb += [cell.use_third.eq(self.add), self.sums[i].eq(cell.sum)]
                before = cell
        return m
