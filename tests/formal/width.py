"""WidthConverter: every part of every word, once, in order."""

from __future__ import annotations

from amaranth import Array, Signal
from amaranth.hdl import Assert, Assume, Cover

from terntable.hw.axi.width import WidthConverter

from .contract import sink, source
from .planted import Bug
from .proof import Proof, Suite


def bench(b, block, i_bits, o_bits):
    m = b.m
    m.submodules.dut = dut = block(i_bits, o_bits)
    part = min(i_bits, o_bits)
    i_parts, o_parts = i_bits // part, o_bits // part
    most = max(i_parts, o_parts)
    m.d.comb += dut.clear.eq(b.free(1, "clear"))
    source(b, dut.i)
    sink(b, dut.o, drop=dut.clear)
    b.independent(dut.i.ready, of=dut.i.valid)

    taken, given = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    level = Signal(range(most + 1))  # parts inside
    left = Signal.like(level)
    m.d.comb += left.eq(level - (given * o_parts)[: len(level)])
    m.d.sync += level.eq(left + taken * i_parts)
    with m.If(dut.clear):
        m.d.sync += level.eq(0)

    # A word shows as soon as it is whole, and one is taken as soon as there is room for it.
    m.d.comb += [
        Assert(dut.o.valid == (level >= o_parts)),
        Assert(dut.i.ready == (~dut.clear & (left + i_parts <= most))),
    ]

    # One part of one word, any of them.
    which = b.constant(range(max(i_parts, 2)), "which")
    inside = Signal()
    ahead = Signal(range(most))
    value = Signal(part)
    m.d.comb += Assume(which < i_parts)
    with m.If(given & inside):
        with m.If(ahead < o_parts):
            m.d.comb += Assert(dut.o.payload.word_select(ahead, part) == value)
            m.d.sync += inside.eq(0)
        with m.Else():
            m.d.sync += ahead.eq(ahead - o_parts)
    with m.If(taken & b.free(1, "mark") & (~inside | (given & (ahead < o_parts)))):
        m.d.sync += [
            inside.eq(1),
            ahead.eq(left + which),
            value.eq(dut.i.payload.word_select(which, part)),
        ]
    with m.If(dut.clear):
        m.d.sync += inside.eq(0)

    # For the induction: where the part lies.
    count = b.probe("dut.count", range(most + 1))
    word = b.probe("dut.word", part * most)
    parts = Array(word.word_select(n, part) for n in range(most))
    m.d.comb += [b.invariant(count == level), b.invariant(level <= most)]
    with m.If(inside):
        at = ahead if i_parts > 1 else ahead + most - level
        m.d.comb += [b.invariant(ahead < level), b.invariant(parts[at] == value)]
    m.d.comb += Cover(given & inside & (ahead == o_parts - 1) & (value != 0))


PROOFS = [
    Proof(WidthConverter, bench, parameters, 2)
    for parameters in ((2, 2), (2, 4), (2, 6), (8, 2), (16, 8))
]
UP, DOWN = PROOFS[2], PROOFS[3]
SUITE = Suite(
    PROOFS,
    reach=(UP, 10),
    bugs=[
        (UP, Bug("first part highest", "| (word >> narrow))", "| (word << narrow))")),
        (
            UP,
            Bug(
                "loses a part when both sides move",
                "m.d.sync += count.eq(1)",
                "m.d.sync += count.eq(0)",
            ),
        ),
        (
            UP,
            Bug(
                "takes a word while it clears",
                "(~full | self.o.ready) & ~self.clear",
                "(~full | self.o.ready)",
            ),
        ),
        (DOWN, Bug("last part twice", "last = count == 1", "last = count == 2")),
        (
            DOWN,
            Bug(
                "waits for ready",
                "self.o.valid.eq(~empty)",
                "self.o.valid.eq(~empty & self.o.ready)",
            ),
        ),
    ],
)
