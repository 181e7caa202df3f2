"""Amaranth's FIFOs: the queues and the skid buffers of all streams in the gateware."""

from __future__ import annotations

from amaranth import Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import fifo

from .contract import held_until_ready
from .fifo_invariants import buffered_fifo, sync_fifo
from .marked import Marked
from .planted import Bug
from .proof import Proof, Suite

WIDTH = 2


def bench(b, block, depth):
    m = b.m
    m.submodules.dut = dut = block(width=WIDTH, depth=depth)
    m.d.comb += [
        dut.w_data.eq(b.free(WIDTH, "w_data")),
        dut.w_en.eq(b.free(1, "w_en")),
        dut.r_en.eq(b.free(1, "r_en")),
    ]
    taken, given = dut.w_en & dut.w_rdy, dut.r_en & dut.r_rdy
    count = Signal(range(depth + 2))
    m.d.sync += count.eq(count + taken - given)
    marked = Marked(b, enter=taken, value=dut.w_data, leave=given, count=count, most=depth)

    held_until_ready(b, dut.r_stream)
    b.independent(dut.r_rdy, of=dut.r_en)
    b.independent(dut.w_rdy, of=dut.w_en)
    m.d.comb += [Assert(count <= depth), Assert(dut.level == count)]
    with m.If(marked.first & given):
        m.d.comb += Assert(dut.r_data == marked.value)
    # Room is offered at once, or for the buffered one when the register has taken a word.
    with m.If(~dut.w_rdy):
        m.d.comb += Assert(count >= (depth if block.__name__ == "SyncFIFO" else depth - 1))
    if block.__name__ == "SyncFIFO":
        m.d.comb += Assert(dut.r_rdy == (count != 0))
        sync_fifo(b, "dut", depth, WIDTH, count, marked)
    else:
        # A word that is inside shows one cycle later at most.
        with m.If(b.before((count != 0) & ~given)):
            m.d.comb += Assert(dut.r_rdy)
        buffered_fifo(b, "dut", depth, WIDTH, count, dut.r_rdy, dut.r_data, marked)
    m.d.comb += Cover(marked.first & given & (count == depth) & (marked.value == 3))


PROOFS = [
    *(Proof(fifo.SyncFIFO, bench, (depth,), 2) for depth in (2, 3, 16)),
    *(Proof(fifo.SyncFIFOBuffered, bench, (depth,), 2) for depth in (2, 3, 8)),
]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[1], 8),
    bugs=[
        (
            PROOFS[1],
            Bug("full unnoticed", "self.w_rdy.eq(self.level != self.depth)", "self.w_rdy.eq(1)"),
        ),
        (PROOFS[1], Bug("wraps early", "_incr(consume, self.depth)", "_incr(consume, 2)")),
        (
            PROOFS[4],
            Bug("full unnoticed", "self.w_rdy.eq(inner_level != inner_depth)", "self.w_rdy.eq(1)"),
        ),
        (
            PROOFS[4],
            Bug(
                "overwrites its register", "inner_r_rdy & (~self.r_rdy | self.r_en)", "inner_r_rdy"
            ),
        ),
    ],
)
