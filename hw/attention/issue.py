"""The order of work: which row group meets which KV block, and what the multipliers do when."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from ..config import KV_BLOCK
from .shape import SLOTS, AttentionShape


class Issuer(Component):
    """Walks passes of queries, KV blocks newest to oldest, and row groups; issues multiplier steps.

    An item is a row group on a block that at least one of its rows sees. Scores of an item (S) are
    issued before the weighted sum (V) of the item before, so that the softmax of one runs beside
    the products of the other: S0 S1 V0 S2 V1 .. An item's description is in `items[half]`, halves
    alternating from 0, from `begin` until its V is over.

    S takes (last + 1) * head_beats cycles, V takes head_beats * max(last + 1, min_period); about
    six more cycles an item. `step` is one multiplier step: the same cycle gives the addresses of
    its operands. `closed` (one cycle, with `closed_half`) says that all steps of a pass are issued.
    `done` ends the command. Reset: idle.
    """

    def __init__(self, shape: AttentionShape, min_period: int, info_layout: data.Layout) -> None:
        self._shape = shape
        self._min_period = min_period
        super().__init__(
            {
                "start": In(1),
                "job": In(shape.job()),
                "done": Out(1),
                # Queries and blocks on chip.
                "queries_valid": In(2),
                "query_pass": In(data.ArrayLayout(shape.query_pass(), 2)),
                "info": Out(
                    Signature(
                        {
                            "half": Out(1),
                            "group": Out(shape.group),
                            "data": In(data.ArrayLayout(info_layout, shape.rows)),
                        }
                    )
                ),
                "blocks_valid": In(SLOTS),
                "free_block": Out(1),
                # Items.
                "items": Out(data.ArrayLayout(shape.item(), 2)),
                "begin": Out(1),
                "begin_half": Out(1),
                "weights_ready": In(2),
                "closed": Out(1),
                "closed_half": Out(1),
                # Steps.
                "step": Out(
                    Signature(
                        {
                            "en": Out(1),
                            "v": Out(1),
                            "half": Out(1),
                            "j": Out(range(KV_BLOCK)),
                            "beat": Out(shape.beat),
                            "first": Out(1),
                            "last": Out(1),  # completes a dot product or a word of sums
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, ar, job = self._shape, self._shape.rows, self.job
        half = Signal()  # of the item whose scores are next
        before = Signal()  # an item waits for its weighted sum
        ending = Signal()
        queries = Signal()
        slot = Signal(range(SLOTS))
        block = Signal(s.position_bits - 5)
        group = Signal(s.group)
        first_row = Signal(range(s.max_rows + 1))  # of the group
        opens = Signal()
        current = self.query_pass[queries]
        last_group = Signal()

        # What the group's rows see of the block.
        relative = Signal(data.ArrayLayout(signed(s.position_bits + 1), ar))
        exists = Signal(ar)
        active = Signal(ar)
        newest = Signal(range(KV_BLOCK))
        m.d.comb += [self.info.half.eq(queries), self.info.group.eq(group)]
        for a in range(ar):
            m.d.comb += active[a].eq(exists[a] & (relative[a] >= 0))
            with m.If(active[a]):  # rows are in order of position
                m.d.comb += newest.eq(Mux(relative[a] > KV_BLOCK - 1, KV_BLOCK - 1, relative[a]))

        item = self.items[half]
        v_item = self.items[~half]
        j = Signal(range(max(KV_BLOCK, self._min_period)))
        beat = Signal(s.beat)
        m.d.comb += [
            self.begin_half.eq(half),
            self.step.j.eq(j),
            self.step.beat.eq(beat),
            self.closed_half.eq(v_item.queries),
        ]
        last_beat = beat == job.head_beats - 1

        with m.FSM(name="issue"):
            with m.State("IDLE"):
                m.d.sync += [queries.eq(0), before.eq(0), ending.eq(0)]
                with m.If(self.start):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.sync += [
                    block.eq(current.newest[5:]),
                    group.eq(0),
                    first_row.eq(0),
                    opens.eq(1),
                ]
                with m.If(self.queries_valid.bit_select(queries, 1)):
                    m.next = "INFO"
            with m.State("INFO"):
                m.d.sync += last_group.eq(first_row + ar >= current.rows)
                m.next = "RELATIVE"
            with m.State("RELATIVE"):
                for a in range(ar):
                    at = job.position + self.info.data[a].token
                    m.d.sync += [
                        relative[a].eq(at - (block << 5)),
                        exists[a].eq(first_row + a < current.rows),
                    ]
                m.next = "ITEM"
            with m.State("ITEM"):
                with m.If(active.any()):
                    m.d.sync += [
                        item.group.eq(group),
                        item.slot.eq(slot),
                        item.queries.eq(queries),
                        item.last.eq(newest),
                        item.active.eq(active),
                        item.opens.eq(opens),
                        item.closes.eq(last_group & (block == 0)),
                        item.frees.eq(last_group),
                    ]
                    for a in range(ar):
                        whole = relative[a] > KV_BLOCK - 1
                        m.d.sync += [
                            item.limit[a].eq(Mux(whole, KV_BLOCK - 1, relative[a])),
                            item.first[a].eq(~whole),
                            item.scale[a].eq(self.info.data[a].scale),
                        ]
                    m.next = "BEGIN"
                with m.Else():  # the block is newer than all of the group; never the last group
                    m.d.sync += [group.eq(group + 1), first_row.eq(first_row + ar)]
                    m.next = "INFO"
            with m.State("BEGIN"):
                m.d.sync += [j.eq(0), beat.eq(0)]
                with m.If(self.blocks_valid.bit_select(slot, 1)):
                    m.d.comb += self.begin.eq(1)
                    m.d.sync += opens.eq(0)
                    m.next = "S"
            with m.State("S"):
                m.d.comb += [
                    self.step.en.eq(1),
                    self.step.half.eq(half),
                    self.step.first.eq(beat == 0),
                    self.step.last.eq(last_beat),
                ]
                m.d.sync += beat.eq(beat + 1)
                with m.If(last_beat):
                    m.d.sync += [beat.eq(0), j.eq(j + 1)]
                    with m.If(j == item.last):
                        m.d.sync += j.eq(0)
                        m.next = "NEXT"
                        with m.If(before):
                            m.next = "WEIGHTS"
            with m.State("WEIGHTS"):
                with m.If(self.weights_ready.bit_select(~half, 1)):
                    m.next = "V"
            with m.State("V"):
                m.d.comb += [
                    self.step.en.eq(j <= v_item.last),
                    self.step.v.eq(1),
                    self.step.half.eq(~half),
                    self.step.first.eq(j == 0),
                    self.step.last.eq(j == v_item.last),
                ]
                m.d.sync += j.eq(j + 1)
                with m.If((j >= v_item.last) & (j >= self._min_period - 1)):
                    m.d.sync += [j.eq(0), beat.eq(beat + 1)]
                    with m.If(last_beat):
                        m.d.sync += beat.eq(0)
                        m.d.comb += [
                            self.free_block.eq(v_item.frees),
                            self.closed.eq(v_item.closes),
                        ]
                        m.next = "NEXT"
                        with m.If(ending):
                            m.d.comb += self.done.eq(1)
                            m.next = "IDLE"
            with m.State("NEXT"):
                m.d.sync += [half.eq(~half), before.eq(1)]
                m.d.sync += [group.eq(group + 1), first_row.eq(first_row + ar)]
                m.next = "INFO"
                with m.If(last_group):
                    m.d.sync += [
                        group.eq(0),
                        first_row.eq(0),
                        slot.eq(slot + 1),
                        block.eq(block - 1),
                    ]
                    with m.If(block == 0):
                        m.d.sync += queries.eq(~queries)
                        m.next = "PASS"
                        with m.If(current.last):
                            m.d.sync += [ending.eq(1), beat.eq(0), j.eq(0)]
                            m.next = "WEIGHTS"
        return m
