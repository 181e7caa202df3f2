"""From accumulator words to beats of the elementwise pipeline."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from ..elementwise.epilogue import beat_layout
from .accumulate import word_address_bits

ROW_BITS = 24
"""Bits of a row number: 16 million rows (the planes of an LM head count singly)."""


def job_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A finished half of the accumulators: one tile of one group of tokens."""
    c = config
    return data.StructLayout(
        {
            "half": 1,
            "words": word_address_bits(c) + 1,  # accumulator words
            "token": max(1, (c.chunk - 1).bit_length()),  # of token lane 0, within the chunk
            "lanes": range(c.tokens + 1),  # token lanes in use
            "closes": 1,  # the last tile: the tokens' results are complete after it
            "head": 1,  # one row a beat, all digits of the activation side by side
            "row": ROW_BITS,  # first weight row of the tile
            "rows_left": signed(ROW_BITS + 1),  # rows from there to the end of the matrix
        }
    )


class Drain(Component):
    """Cuts words of P * Q accumulators into beats of E rows.

    job: describes the words that follow on `i`; taken only when the job before has ended, so
    job.ready says that no beat of it is left here. done: strobe in the cycle after its last beat
    was taken; closed: then, the tokens whose results it completes. i: [p * Q + q]. o: for every
    word, every token lane in use, every E rows: the token, the number of the E rows in the matrix,
    their sums. With `head`: for every word and row one
    beat, acc[d] the sum of token lane d. Rows from rows_left on are left out. One beat a cycle,
    LATENCY cycle from a word; stalls with `o`. Reset drops the job.
    """

    LATENCY = 1

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        super().__init__(
            {
                "job": In(stream.Signature(job_layout(c))),
                "done": Out(1),
                "closed": Out(range(c.tokens + 1)),
                "i": In(stream.Signature(data.ArrayLayout(signed(c.acc_bits), c.tokens * c.rows))),
                "o": Out(stream.Signature(beat_layout(c))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        steps, shift = c.rows // c.lanes, c.lanes.bit_length() - 1
        m = Module()
        job = Signal(job_layout(c))
        active, left = Signal(), Signal()  # left: words are to come
        m.d.comb += [
            self.job.ready.eq(~active),
            self.closed.eq(Mux(self.done & job.closes, job.lanes, 0)),
        ]
        lane, final = Signal(range(max(c.tokens, 2))), Signal(range(max(c.tokens, 2)))
        with m.If(self.job.valid & self.job.ready):
            some = self.job.payload.words != 0
            m.d.sync += [active.eq(some), left.eq(some), job.eq(self.job.payload)]
            m.d.sync += self.done.eq(~some)
            m.d.sync += final.eq(Mux(self.job.payload.head, 0, self.job.payload.lanes - 1))
        with m.Else():
            m.d.sync += self.done.eq(0)

        offset = Signal(range(c.rows))  # of the beat's first row within the word
        last_lane, last_step, present = Signal(), Signal(), Signal()
        free, advance = Signal(), Signal()
        step = Mux(job.head, 1, c.lanes)
        beat = Signal(data.ArrayLayout(signed(c.acc_bits), c.lanes))
        m.d.comb += [
            last_lane.eq(lane == final),
            last_step.eq(offset == Mux(job.head, c.rows - 1, c.rows - c.lanes)),
            present.eq(offset < job.rows_left),
            free.eq(~self.o.valid | self.o.ready),
            advance.eq(left & self.i.valid & free),
            self.i.ready.eq(advance & last_lane & last_step),
        ]
        # Not a computed index: the simulators are quicker with one case a beat.
        with m.If(job.head):
            with m.Switch(offset):
                for q in range(c.rows):
                    with m.Case(q):
                        m.d.comb += [
                            beat[d].eq(self.i.payload[d * c.rows + q]) for d in range(c.head_digits)
                        ]
        with m.Else():
            with m.Switch(lane * steps + (offset >> shift)):
                for n in range(c.tokens * steps):
                    with m.Case(n):
                        m.d.comb += [
                            beat[e].eq(self.i.payload[n * c.lanes + e]) for e in range(c.lanes)
                        ]
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(advance & present),
                self.o.payload.token.eq(job.token + lane),
                self.o.payload.word.eq((job.row + offset) >> shift),
                self.o.payload.acc.eq(beat),
            ]
        with m.If(advance):
            m.d.sync += offset.eq(Mux(last_step, 0, offset + step))
            with m.If(last_step):
                m.d.sync += lane.eq(Mux(last_lane, 0, lane + 1))
                with m.If(last_lane):
                    m.d.sync += [
                        left.eq(job.words != 1),
                        job.words.eq(job.words - 1),
                        job.row.eq(job.row + c.rows),
                        job.rows_left.eq(job.rows_left - c.rows),
                    ]
        with m.If(active & ~left & free):
            m.d.sync += [active.eq(0), self.done.eq(1)]
        return m
