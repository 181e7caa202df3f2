"""BurstSplitter: descriptors become exactly the bursts that AXI allows, and end."""

from __future__ import annotations

from amaranth import Mux, Signal
from amaranth.hdl import Assert, Cover

from terntable.hw.axi.bursts import BurstSplitter
from terntable.hw.axi.bus import PAGE_BYTES

from .contract import lawful, sink, source
from .planted import Bug
from .proof import Proof, Suite

NEXT, SIZE, ISSUE = range(3)


def bench(b, block, bus_bits, burst_beats):
    m = b.m
    m.submodules.dut = dut = block(bus_bits, burst_beats)
    bus_bytes = bus_bits // 8
    source(b, dut.req)
    sink(b, dut.o)
    b.independent(dut.req.ready, of=dut.req.valid)
    taken, given = dut.req.valid & dut.req.ready, dut.o.valid & dut.o.ready

    # What is left of the descriptor.
    address, left = Signal(32), Signal(24)
    with m.If(taken):
        m.d.sync += [address.eq(dut.req.payload.address), left.eq(dut.req.payload.beats)]
    with m.If(given):
        m.d.sync += [
            address.eq(address + dut.o.payload.beats * bus_bytes),
            left.eq(left - dut.o.payload.beats),
        ]

    page = (PAGE_BYTES - address % PAGE_BYTES) // bus_bytes
    page = Mux((address % bus_bytes) == 0, page, page + 1)
    most = Mux(left < burst_beats, left, burst_beats)
    beats = Mux(page < most, page, most)
    with m.If(dut.o.valid):
        m.d.comb += [
            Assert(dut.o.payload.address == address),
            Assert(dut.o.payload.beats == beats),
            Assert(beats <= left),
            Assert(dut.last == (beats == left)),
            Assert(lawful(dut.o.payload, bus_bits, burst_beats)),
        ]
    m.d.comb += [Assert((left == 0) | dut.busy), Assert((left == 0) | ~dut.req.ready)]
    # A descriptor of no beats takes a cycle more.
    with m.If(b.before((left == 0) & ~taken) & (left == 0)):
        m.d.comb += [Assert(~dut.busy), Assert(dut.req.ready)]
    # A burst is offered three cycles after the descriptor or the burst before.
    due = b.before((left != 0) & ~given)
    with m.If(due & b.before(due)):
        m.d.comb += Assert(dut.o.valid)

    # For the induction.
    state, some = b.probe("dut.fsm_state", 2), b.probe("dut.some", 1)
    m.d.comb += [
        b.invariant(state <= ISSUE),
        b.invariant(dut.o.valid == (state == ISSUE)),
        b.invariant(b.probe("dut.remaining", 24) == left),
        b.invariant((left != 0) | (state == NEXT)),
        b.invariant((left == 0) | some),
        b.invariant(~some | (left != 0) | b.before(taken)),
    ]
    with m.If(left != 0):
        m.d.comb += b.invariant(b.probe("dut.address", 32) == address)
    with m.If(state == SIZE):
        m.d.comb += [
            b.invariant(b.probe("dut.most", 9) == most),
            b.invariant(b.probe("dut.ends", 1) == (left <= burst_beats)),
            b.invariant(b.probe("dut.page", range(PAGE_BYTES // bus_bytes + 1)) == page),
        ]
    m.d.comb += Cover(given & (left > burst_beats) & (page == 1))
    m.d.comb += Cover(given & (beats == burst_beats))


PROOFS = [
    Proof(BurstSplitter, bench, parameters, 3) for parameters in ((16, 4), (64, 256), (256, 16))
]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 10),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("across a page", "beats.eq(Mux(page < most, page, most))", "beats.eq(most)"),
            Bug(
                "beyond the descriptor",
                "short = remaining < self._burst_beats",
                "short = remaining < 0",
            ),
            Bug("last before a page", "ends & (page >= most)", "ends"),
            Bug("beat size forgotten", "address + (beats << shift)", "address + beats"),
            Bug("idle too early", '~fsm.ongoing("NEXT") | some', '~fsm.ongoing("NEXT")'),
        )
    ],
)
