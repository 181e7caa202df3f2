"""Skid: a queue of two words whose ends know nothing of one another in a cycle."""

from __future__ import annotations

from amaranth import Signal
from amaranth.hdl import Assert, Cover

from terntable.hw.skid import Skid

from .contract import sink, source
from .marked import Marked
from .planted import Bug
from .proof import Proof, Suite

WIDTH = 2


def bench(b, block):
    m = b.m
    m.submodules.dut = dut = block(WIDTH)
    source(b, dut.i)
    sink(b, dut.o)
    b.independent(dut.i.ready, of=dut.i.valid)
    b.independent(dut.i.ready, of=dut.o.ready)
    b.independent(dut.o.valid, of=dut.i.valid)
    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    count = Signal(range(4))
    m.d.sync += count.eq(count + taken - given)
    marked = Marked(b, enter=taken, value=dut.i.payload, leave=given, count=count, most=2)

    # A word shows in the next cycle, and there is room for two.
    m.d.comb += [
        Assert(count <= 2),
        Assert(dut.o.valid == (count != 0)),
        Assert(dut.i.ready == (count != 2)),
    ]
    with m.If(marked.first & given):
        m.d.comb += Assert(dut.o.payload == marked.value)

    # For the induction.
    m.d.comb += b.invariant(b.probe("dut.kept", 1) == (count == 2))
    with m.If(marked.inside):
        m.d.comb += b.invariant(marked.ahead < count)
        with m.If(marked.first):
            m.d.comb += b.invariant(dut.o.payload == marked.value)
        with m.Else():
            m.d.comb += b.invariant(b.probe("dut.spare", WIDTH) == marked.value)
    m.d.comb += Cover(marked.first & given & (count == 2) & (marked.value == 3))


PROOFS = [Proof(Skid, bench, (), 2)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 8),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("spare word lost", "self.i.valid | kept", "self.i.valid"),
            Bug("new word first", "self.o.payload.eq(spare)", "self.o.payload.eq(self.i.payload)"),
            Bug("takes a third word", "self.i.ready.eq(~kept)", "self.i.ready.eq(1)"),
        )
    ],
)
