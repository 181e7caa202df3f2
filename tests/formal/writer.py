"""WriteChannel: bursts only with their data at hand, every word handed on, idle exactly then."""

from __future__ import annotations

from amaranth import Cat, Signal, Value
from amaranth.hdl import Assert, Assume, Cover

from terntable.hw.axi.writer import WriteChannel

from .contract import lawful, sink, source
from .fifo_invariants import buffered_fifo
from .marked import Marked
from .planted import Bug
from .proof import Proof, Suite
from .reader import BITS, offer_invariant, splitter_invariant

WORD = BITS + BITS // 8


def bench(b, block, burst_beats, depth):
    m = b.m
    m.submodules.dut = dut = block(BITS, burst_beats, depth)
    source(b, dut.channel.req)
    source(b, dut.channel.data)
    sink(b, dut.burst)
    sink(b, dut.word)
    b.independent(dut.channel.data.ready, of=dut.channel.data.valid)

    # The port takes the words of bursts that it has accepted, and then answers them.
    offered = dut.burst.valid & dut.burst.ready
    beats = dut.burst.payload.beats & offered.replicate(9)
    stored = dut.channel.data.valid & dut.channel.data.ready
    given = dut.word.valid & dut.word.ready
    count = Signal(range(depth + 2))  # words in the buffer
    owed = Signal(range(depth + 2))  # of these, words of accepted bursts
    waiting = Signal(range(block.OUTSTANDING + 2))  # bursts that are not answered
    m.d.comb += dut.answered.eq(b.free(1, "answered"))
    m.d.comb += [Assume(~dut.word.ready | (owed != 0)), Assume(~dut.answered | (waiting != 0))]
    m.d.sync += [
        count.eq(count + stored - given),
        owed.eq(owed + beats - given),
        waiting.eq(waiting + offered - dut.answered),
    ]
    data = Cat(dut.channel.data.payload.data, dut.channel.data.payload.strobe)
    marked = Marked(b, enter=stored, value=data, leave=given, count=count, most=depth)

    with m.If(dut.burst.valid):
        m.d.comb += [
            Assert(lawful(dut.burst.payload, BITS, burst_beats)),
            Assert(owed + dut.burst.payload.beats <= count),
        ]
    # What was accepted is at hand, though a word may be a cycle on its way through the buffer.
    m.d.comb += [Assert(owed <= count), Assert(waiting <= block.OUTSTANDING)]
    with m.If(b.before((owed != 0) & ~given)):
        m.d.comb += Assert(dut.word.valid)
    with m.If(marked.first & given):
        m.d.comb += Assert(Value.cast(dut.word.payload) == marked.value)
    left = Signal(24)  # beats of the descriptor that were not offered
    final = Marked(
        b, enter=offered, value=left == beats, leave=dut.answered, count=waiting,
        most=block.OUTSTANDING,
    )  # fmt: skip
    m.d.comb += Assert(~dut.channel.done | dut.answered)
    with m.If(final.first & dut.answered):
        m.d.comb += Assert(dut.channel.done == final.value)
    with m.If(dut.channel.req.valid & dut.channel.req.ready):
        m.d.sync += left.eq(dut.channel.req.payload.beats)
    with m.If(offered):
        m.d.sync += left.eq(left - beats)
    none = (left == 0) & (waiting == 0)
    m.d.comb += Assert(~dut.channel.idle | none)
    # A descriptor of no beats takes a cycle.
    with m.If(none & b.before(none & ~(dut.channel.req.valid & dut.channel.req.ready))):
        m.d.comb += Assert(dut.channel.idle)

    # For the induction.
    present, spent = b.probe("dut.present", range(depth + 1)), b.probe("dut.spent", 9)
    m.d.comb += [
        b.invariant(present + owed == count + spent),
        b.invariant(spent <= present),
        b.invariant(b.probe("dut.outstanding", range(block.OUTSTANDING + 1)) == waiting),
        b.invariant(b.probe("dut.splitter.remaining", 24) == left),
        b.invariant(
            ~b.probe("dut.splitter.some", 1)
            | (left != 0)
            | b.before(dut.channel.req.valid & dut.channel.req.ready)
        ),
    ]
    offer_invariant(b, "dut", dut.burst, spent, present)
    with m.If(b.probe("dut.enough", 1) & b.probe("dut.splitter.o__valid", 1)):
        m.d.comb += b.invariant(waiting != block.OUTSTANDING)
    with m.If(final.inside):
        lasts = b.probe("dut.lasts", block.OUTSTANDING)
        m.d.comb += [
            b.invariant(final.ahead < waiting),
            b.invariant(lasts.bit_select(final.ahead, 1) == final.value),
        ]
    buffered_fifo(b, "dut.buffer", depth, WORD, count, dut.word.valid, dut.word.payload, marked)
    splitter_invariant(b, "dut.splitter", burst_beats)
    m.d.comb += Cover(dut.channel.idle & b.before(dut.answered) & (marked.value == 0xABCD))


PROOFS = [Proof(WriteChannel, bench, parameters, 3) for parameters in ((2, 4), (4, 4))]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 16),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("offers without data", "(present >= splitter.o.payload.beats)", "(present != 0)"),
            Bug(
                "counts a word twice",
                "present - spent + stored",
                "present - spent + 2 * stored",
            ),
            Bug("done a burst early", "outstanding - self.answered", "outstanding"),
            Bug("idle before the answer", "~splitter.busy & (outstanding == 0)", "~splitter.busy"),
        )
    ],
)
