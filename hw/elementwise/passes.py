"""The order of work on rows: every segment of a row is read and measured, then quantised."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, enum, stream
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from ..config import AcceleratorConfig
from ..interfaces import row_words

SEGMENTS = 8
"""Segments between the start of their measuring and the start of their quantising."""

HEADROOM = 64
"""Words that the ring of products holds beyond the longest row, so that the next row is measured
while the scale of one is computed."""


class Kind(enum.Enum, shape=2):
    """What a segment becomes."""

    INT8 = 0
    QUERY = 1
    KEY = 2
    VALUE = 3


def ring_bits(config: AcceleratorConfig) -> int:
    """Address bits of the ring of products."""
    return ceil_log2(row_words(config, config.longest_row) + HEADROOM)


def tag_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What travels with the words of a segment."""
    return data.StructLayout(
        {
            "kind": Kind,
            "row": range(max(config.chunk, 2)),
            "head": range(max(config.max_heads, 2)),
            "high": unsigned(1),  # first of two quantise passes: the high digit
        }
    )


def segment_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A stretch of a row that has one scale: a whole row, or a head."""
    return data.StructLayout(
        {
            "row": range(max(config.chunk, 2)),
            "base": range(row_words(config, config.longest_row)),  # first word
            "tag": tag_layout(config),  # `high` set: quantised twice, high digit first
        }
    )


def measure_layout() -> data.StructLayout:
    """A word that is read from a row memory."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "first": unsigned(1),
            "last": unsigned(1),
            "query": unsigned(1),
            "exponent": unsigned(8),  # of the row's largest element
        }
    )


def quantise_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A word that is read from the ring of products."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "last": unsigned(1),
            "address": unsigned(ring_bits(config)),
            "scale": unsigned(32),
            "tag": tag_layout(config),
        }
    )


def scale_layout() -> data.StructLayout:
    """What the scalar units make of a measured segment."""
    return data.StructLayout({"scale": unsigned(32), "factor": unsigned(32)})


class Passes(Component):
    """Reads segments once, to be measured and kept, and again from the ring, to be quantised.

    Both go on at the same time: up to `SEGMENTS` segments, and as many words as the ring holds, are
    measured ahead of the one that is quantised.

    Throughput: a word a cycle in either direction without gaps, as long as scales are there in
    time. Back-pressure: `hold`, `stall`. Reset drops everything.

    Ports
    -----
    segments : what to do, in order; `words` words each (constant while any is in hand).
    max_row, max : statistics of the row memory that is read.
    en, row, word : read of that row memory; `measure` describes the word in the same cycle.
    stall : another reader has the row memory in this cycle.
    scales, scaled : from the scalar units, a strobe for each measured segment in order.
    quantise : read of the ring.
    begin, tag, factor : strobe when a segment's (first) quantise pass begins, with its tag and
        factor. `tag` shows the next segment before; `hold` keeps it from beginning.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        words = row_words(config, config.longest_row)
        super().__init__(
            {
                "segments": In(stream.Signature(segment_layout(config))),
                "words": In(16),
                "max_row": Out(range(max(config.chunk, 2))),
                "max": In(8),
                "en": Out(1),
                "row": Out(range(max(config.chunk, 2))),
                "word": Out(range(max(words, 2))),
                "stall": In(1),
                "measure": Out(measure_layout()),
                "scales": In(scale_layout()),
                "scaled": In(1),
                "quantise": Out(quantise_layout(config)),
                "begin": Out(1),
                "tag": Out(tag_layout(config)),
                "factor": Out(32),
                "hold": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self._config
        tag_bits = tag_layout(c).size
        m.submodules.tags = tags = SyncFIFOBuffered(width=tag_bits, depth=SEGMENTS)
        m.submodules.ready = ready = SyncFIFO(width=64, depth=SEGMENTS)
        space = Signal(range((1 << ring_bits(c)) + 1), init=1 << ring_bits(c))
        freed = Signal()

        # Read and measure.
        segment = self.segments.payload
        taken = Signal()
        reading = Signal()
        left = Signal(16)
        ends = self.en & (left == 1)
        m.d.comb += [
            self.max_row.eq(segment.row),
            self.segments.ready.eq((~reading | ends) & tags.w_rdy),
            taken.eq(self.segments.valid & self.segments.ready),
            tags.w_en.eq(taken),
            tags.w_data.eq(segment.tag),
            self.en.eq(reading & (space != 0) & ~self.stall),
            self.measure.valid.eq(self.en),
            self.measure.last.eq(left == 1),
        ]
        with m.If(self.en):
            m.d.sync += [self.word.eq(self.word + 1), left.eq(left - 1)]
            m.d.sync += self.measure.first.eq(0)
        with m.If(taken):
            m.d.sync += [
                reading.eq(1),
                left.eq(self.words),
                self.row.eq(segment.row),
                self.word.eq(segment.base),
                self.measure.first.eq(1),
                self.measure.exponent.eq(self.max),
                self.measure.query.eq(segment.tag.kind == Kind.QUERY),
            ]
        with m.Elif(ends):
            m.d.sync += reading.eq(0)
        m.d.sync += space.eq(space - self.en + freed)

        # Quantise.
        scales = Signal(scale_layout())
        m.d.comb += [
            ready.w_en.eq(self.scaled),
            ready.w_data.eq(self.scales),
            scales.eq(ready.r_data),
            self.tag.eq(tags.r_data),
            self.factor.eq(scales.factor),
            ready.r_en.eq(self.begin),
            tags.r_en.eq(self.begin),
        ]
        active = Signal()
        again = Signal()  # a second pass follows
        to_go = Signal(16)
        final, single = Signal(), Signal()  # the last word; a segment has one word
        m.d.sync += single.eq(self.words == 1)
        start = Signal(ring_bits(c))  # of the segment in the ring
        q = self.quantise
        address = Signal.like(start)
        tag = Signal(tag_layout(c))
        scale = Signal(32)
        m.d.comb += [
            q.valid.eq(active),
            q.last.eq(final),
            q.address.eq(address),
            q.scale.eq(scale),
            q.tag.eq(tag),
            q.tag.high.eq(again),
            freed.eq(active & ~again),
            self.begin.eq(ready.r_rdy & ~self.hold & (~active | (q.last & ~again))),
        ]
        with m.If(active):
            m.d.sync += [address.eq(address + 1), to_go.eq(to_go - 1), final.eq(to_go == 2)]
            with m.If(q.last):
                m.d.sync += [again.eq(0), active.eq(again), to_go.eq(self.words), final.eq(single)]
                with m.If(again):
                    m.d.sync += address.eq(start)
                with m.Else():
                    m.d.sync += start.eq(address + 1)
        with m.If(self.begin):
            m.d.sync += [
                active.eq(1),
                again.eq(self.tag.high),
                to_go.eq(self.words),
                final.eq(single),
                tag.eq(self.tag),
                scale.eq(scales.scale),
            ]
        return m
