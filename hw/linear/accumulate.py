"""Accumulators: two halves of a block RAM, one filled while the other drains."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from .array import OLD_LATENCY, accumulator_word

LEAD = 1 + OLD_LATENCY
"""Cycles from an `issue` to the cycle in which its sums must be given."""
FIFO_DEPTH = 32
"""Drained words that wait; LUTRAM of up to this depth costs the same."""


def word_address_bits(config: AcceleratorConfig) -> int:
    """Bits of a word's number within a tile."""
    return max(1, (config.tile_rows // config.rows - 1).bit_length())


def issue_layout(config: AcceleratorConfig) -> data.StructLayout:
    """What accompanies a word of a sweep."""
    return data.StructLayout(
        {
            "valid": 1,
            "first": 1,  # first K tile: the old sum is not added
            "last": 1,  # last word of the last K tile of this half
            "half": 1,
            "word": word_address_bits(config),
        }
    )


class Accumulator(Component):
    """Keeps the P * Q accumulators of each word of a tile for the array, which adds to them, and
    reads finished halves out between.

    issue: describes the sums that arrive LEAD cycles later; one a cycle, never refused. old,
    use_old: what the array adds to, OLD_LATENCY cycles before the sums. The same word may come
    again after 4 cycles. finished: strobe in the cycle after the `last` word was
    written. drain (strobe, only when the drain before has been taken from `o` completely): read
    words 0..words-1 of `half` into a FIFO behind `o`; issues that add have the read port first.
    o: words of P * Q signed acc_bits, [p * Q + q]. Reset ends a drain and empties the FIFO.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        word = accumulator_word(c)
        super().__init__(
            {
                "issue": In(issue_layout(c)),
                "old": Out(word),
                "use_old": Out(1),
                "sums": In(word),
                "finished": Out(1),
                "drain": In(1),
                "drain_half": In(1),
                "drain_words": In(word_address_bits(c) + 1),
                "o": Out(stream.Signature(word)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        bits = word_address_bits(c)
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(c.tokens * c.rows * c.acc_bits),
            depth=2 << bits,
            init=[],
            attrs={"ram_style": "block"},
        )
        read, write = memory.read_port(), memory.write_port()

        # Stage 0: address; stage 1: memory output; the sums arrive in stage LEAD.
        adds = Signal()
        draining = Signal()
        drain_read = Signal()
        drain_half = Signal()
        drain_word = Signal(bits)
        drain_left = Signal(bits + 1)
        credit = Signal(range(FIFO_DEPTH + 1), init=FIFO_DEPTH)
        m.d.comb += [
            adds.eq(self.issue.valid & ~self.issue.first),
            draining.eq((drain_left != 0) & (credit != 0)),
            drain_read.eq(draining & ~adds),
            read.en.eq(adds | draining),
            read.addr.eq(
                Mux(adds, Cat(self.issue.word, self.issue.half), Cat(drain_word, drain_half))
            ),
        ]
        stages: list[data.View] = [self.issue]
        for number in range(LEAD):
            stage = Signal(issue_layout(c), name=f"stage{number}")
            m.d.sync += stage.eq(stages[-1])
            stages.append(stage)
        written = stages[LEAD]
        m.d.comb += [
            self.old.as_value().eq(read.data),
            self.use_old.eq(~stages[1].first),
            write.en.eq(written.valid),
            write.addr.eq(Cat(written.word, written.half)),
            write.data.eq(self.sums),
        ]
        m.d.sync += self.finished.eq(written.valid & written.last)

        # Drain: the memory's output, and whether there is one, a cycle later.
        drained = Signal(len(read.data), reset_less=True)
        reading, arrival = Signal(), Signal()
        m.d.sync += [drained.eq(read.data), reading.eq(drain_read), arrival.eq(reading)]
        with m.If(drain_read):
            m.d.sync += [drain_word.eq(drain_word + 1), drain_left.eq(drain_left - 1)]
        with m.If(self.drain):
            m.d.sync += [
                drain_half.eq(self.drain_half),
                drain_word.eq(0),
                drain_left.eq(self.drain_words),
            ]
        m.submodules.fifo = fifo = Memory(
            shape=unsigned(c.tokens * c.rows * c.acc_bits),
            depth=FIFO_DEPTH,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        push, head = fifo.write_port(), fifo.read_port(domain="comb")
        level = Signal(range(FIFO_DEPTH + 1))
        pop, some = Signal(), Signal()  # some: level != 0
        m.d.comb += [
            push.en.eq(arrival),
            push.data.eq(drained),
            self.o.valid.eq(some),
            self.o.payload.eq(head.data),
            pop.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += [
            push.addr.eq(push.addr + arrival),
            head.addr.eq(head.addr + pop),
            level.eq(level + arrival - pop),
            some.eq(arrival | Mux(pop, level != 1, some)),
            credit.eq(credit + pop - drain_read),
        ]
        return m
