"""w.v of items: the third stage of attention."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import delay
from ..modules import ModuleLibrary
from .geometry import ITEMS
from .mac import SumRow
from .placed import place_rows
from .shape import READ_LATENCY, SUM_BITS, WEIGHT_BITS, AttentionShape


class SumStage(Component):
    """Sums weights times V over an item's positions, items in order, a word of the head after the
    other; hands the sums out a row's word of V at a time, for as many cycles as it has parts.

    An item starts when its `weights` are there and, if it is a tile's last, its `inverses`, each a
    count of items modulo 2 * ITEMS (of such items for the latter). `weighed_out` counts the items
    whose weights were read. `free_block` is high for a cycle when the last item of a block has read
    it.

    `coming` announces a `word` of outputs ANNOUNCED cycles before it is part `part` of `sums`;
    parts innermost, then rows, then words of V. An item takes one cycle and head_beats *
    max(steps, least_sum_period). `moved` is high while it steps. Reset: no item.
    """

    ANNOUNCED = 6

    def __init__(self, shape: AttentionShape, library: ModuleLibrary | None = None) -> None:
        self._shape, self._library = s, _ = shape, library
        count = range(2 * ITEMS)
        words = data.ArrayLayout(data.ArrayLayout(signed(16), s.dims), s.positions)
        weights = data.ArrayLayout(data.ArrayLayout(WEIGHT_BITS, s.positions), s.rows)
        step = {"step": Out(s.step)}
        super().__init__(
            {
                "head_beats": In(range(s.beats + 1)),
                "weights": In(count),
                "inverses": In(count),
                "weighed_out": Out(count),
                "free_block": Out(1),
                "moved": Out(1),
                "item": Out(Signature({"index": Out(s.index), "data": In(s.item())})),
                "weight": Out(Signature(step | {"index": Out(s.index), "data": In(weights)})),
                "v": Out(
                    Signature(step | {"slot": Out(s.slot), "beat": Out(s.beat), "data": In(words)})
                ),
                "coming": Out(1),
                "word": Out(self.word_layout(s)),
                "sums": Out(data.ArrayLayout(signed(SUM_BITS), s.dims)),
            }
        )

    @staticmethod
    def word_layout(shape: AttentionShape) -> data.StructLayout:
        """A word of outputs: its row, and where in the head."""
        return data.StructLayout(
            {
                "tag": shape.tag(),
                "beat": shape.beat,
                "part": range(max(shape.parts, 2)),
                "ends": 1,  # the item
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self._shape
        period = max(s.steps, s.least_sum_period)
        started = Signal(range(2 * ITEMS))
        closed = Signal(range(2 * ITEMS))  # items that close, of those that started
        u = Signal(range(period))
        beat, last_beat = Signal(s.beat), Signal(s.beat)
        running = Signal()
        item = Signal(s.item())

        here = self.item.data
        at_last_beat = beat == last_beat
        inverted = ~here.closes | (closed != self.inverses)
        m.d.sync += self.free_block.eq(0)
        # Steps go down to 0, where a word's sums are whole, a period apart.
        least = s.least_sum_period
        most = Signal.like(u)
        m.d.comb += most.eq(Mux(item.steps > least, item.steps, least) - 1)
        with m.If(running):
            m.d.sync += u.eq(u - 1)
            with m.If(u == 0):
                m.d.sync += [u.eq(most), beat.eq(beat + 1)]
                with m.If(at_last_beat):
                    m.d.sync += [
                        running.eq(0),
                        started.eq(started + 1),
                        self.free_block.eq(item.frees),
                    ]
        with m.Elif((started != self.weights) & inverted):
            m.d.sync += [
                running.eq(1),
                item.eq(here),
                u.eq(Mux(here.steps > least, here.steps, least) - 1),
                beat.eq(0),
                last_beat.eq(self.head_beats - 1),
                closed.eq(closed + here.closes),
            ]
        m.d.comb += [
            self.item.index.eq(started),
            self.weighed_out.eq(started),
            self.moved.eq(running),
            self.weight.index.eq(started),
            self.weight.step.eq(u),
            self.v.slot.eq(item.slot),
            self.v.step.eq(u),
            self.v.beat.eq(beat),
        ]

        # Products, and sums over steps and positions.
        first = u == item.steps - 1
        last = running & (u == 0)
        add = delay(m, ~first, READ_LATENCY + SumRow.add_delay(s), reset_less=True)
        to_sums = READ_LATENCY + SumRow.latency(s)
        whole = delay(m, last, to_sums)
        # All rows' sums at once are held while they go on one after the other.
        held = [
            Signal(data.ArrayLayout(signed(SUM_BITS), s.dims), name=f"held{a}", reset_less=True)
            for a in range(s.rows)
        ]
        rows = place_rows(m, self._library, "sum", SumRow, s)
        for a, row in enumerate(rows):
            m.d.comb += [row.weight.eq(self.weight.data[a]), row.v.eq(self.v.data), row.add.eq(add)]
            with m.If(whole):
                m.d.sync += held[a].eq(row.sums)

        # Their words, announced in the order in which they will come.
        word = Signal(self.word_layout(s))
        left = Signal(range(s.rows * s.parts + 1))
        early = to_sums + 2 - self.ANNOUNCED
        begin = Signal(self.word_layout(s))
        m.d.comb += [
            begin.tag.index.eq(started),
            begin.tag.tile.eq(item.tile),
            begin.tag.closes.eq(item.closes),
            begin.beat.eq(beat),
            begin.ends.eq(at_last_beat),
        ]
        begins = delay(m, last, early - 1)
        begin = delay(m, begin, early - 1, reset_less=True)
        with m.If(left != 0):
            m.d.sync += [left.eq(left - 1), word.part.eq(word.part + 1)]
            with m.If(word.part == s.parts - 1):
                m.d.sync += [word.part.eq(0), word.tag.lane.eq(word.tag.lane + 1)]
        with m.If(begins):
            m.d.sync += [left.eq(s.rows * s.parts), word.eq(begin)]
        m.d.comb += [
            self.coming.eq(left != 0),
            self.word.eq(word),
            self.word.ends.eq(word.ends & (left == 1)),
        ]
        # All parts of the row; which of them is left to whoever adds it to something.
        lane = delay(m, word.tag.lane, self.ANNOUNCED - 1, reset_less=True)
        with m.Switch(lane):
            for a in range(s.rows):
                with m.Case(a):
                    m.d.sync += self.sums.eq(held[a])
        return m
