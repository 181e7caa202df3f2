"""The whole DMA, one requester at a time and a memory: the blocks are wired to one another.

Bounded: what a requester reads or writes is the memory's word at its own address. One word of the
memory, any, stands for all. How requesters share a port is proved of the ports.
"""

from __future__ import annotations

from unittest.mock import patch

from amaranth import Array, C, Cat, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover, Fragment
from amaranth.lib import data

from terntable.hw.axi.bus import ADDRESS_BITS, address_layout
from terntable.hw.axi.dma import KV, KV_WRITE, LOAD, LOGITS, PROGRAM, WEIGHTS, Dma
from terntable.hw.axi.read_port import ReadPort
from terntable.hw.axi.write_port import WritePort
from terntable.hw.config import load_config

from .contract import sink, source
from .planted import Bug
from .proof import Proof, Suite

# Narrower than a configuration may be.
CONFIG = load_config("test").model_copy(update={"ports": 1, "bus_bits": 16, "burst_beats": 2})
BYTES = CONFIG.bus_bytes
BITS = CONFIG.bus_bits
READERS = {WEIGHTS: "weights0", KV: "kv0", LOAD: "load", PROGRAM: "program"}
WRITERS = {KV_WRITE: "kv_write", LOGITS: "logits"}
BASE, WRITE_BASE, LIMIT = 0x56_0000_0000, 0x1004, 0x2FF0
OFFSET_BITS = 14
"""Of the requester's addresses: a few pages. The blocks' own proofs have all of them."""
QUEUE = 2
"""Bursts that a port, and the memory, have outstanding."""


class Descriptor:
    """A requester's descriptor: the offset of the next word, and the words left. The next
    descriptor follows when these have moved and `done` is high."""

    def __init__(self, b, channel, move, flush, done=1):
        m = b.m
        words = Cat(b.free(OFFSET_BITS, "address"), C(0, 32 - OFFSET_BITS), b.free(3, "beats"))
        source(b, channel.req, drop=flush, words=words)
        self.at = Signal(OFFSET_BITS + 1)
        self.left = Signal(3)
        m.d.comb += Assume(~channel.req.valid | ((self.left == 0) & done))
        with m.If(move):
            m.d.sync += [self.at.eq(self.at + BYTES), self.left.eq(self.left - 1)]
        with m.If(channel.req.valid & channel.req.ready):
            m.d.sync += [
                self.at.eq(channel.req.payload.address),
                self.left.eq(channel.req.payload.beats),
            ]
        with m.If(flush):
            m.d.sync += self.left.eq(0)


class Queue:
    """The bursts that the memory has accepted, oldest first: whether there is one, the offset of
    its next beat, and whether that is its last. `move` says that this beat moves."""

    def __init__(self, b, channel, move):
        m = b.m
        level = Signal(range(QUEUE + 1))
        beat = Signal(8)
        entries = Array(Signal(address_layout(), name=f"entry{n}") for n in range(QUEUE))
        first = entries[0]
        self.some = level != 0
        self.offset = (first.addr + beat * BYTES)[: OFFSET_BITS + 1]
        self.last = beat == first.len
        sink(b, channel)
        m.d.comb += Assume(~channel.ready | (level != QUEUE))
        taken = channel.valid & channel.ready
        left = move & self.last
        with m.If(move):
            m.d.sync += beat.eq(Mux(self.last, 0, beat + 1))
        with m.If(left):
            m.d.sync += [entries[n].eq(entries[n + 1]) for n in range(QUEUE - 1)]
        with m.If(taken):
            entry = data.View(address_layout(), entries[level - left].as_value())
            m.d.sync += entry.eq(channel.payload)
        m.d.sync += level.eq(level + taken - left)


def bench(b, block, unit):
    m = b.m
    dut = block(CONFIG)
    with (
        patch.object(ReadPort, "OUTSTANDING", QUEUE),
        patch.object(WritePort, "OUTSTANDING", QUEUE),
    ):
        m.submodules.dut = Fragment.get(dut, None)
    axi = dut.m_axi0
    flush = b.free(1, "flush")
    m.d.comb += [
        dut.base.eq(BASE),
        dut.limit.eq(LIMIT),
        dut.write_base.eq(WRITE_BASE),
        dut.flush.eq(flush),
    ]
    place = b.constant(OFFSET_BITS, "place")  # of the one word
    m.d.comb += Assume(place % BYTES == 0)
    if unit in READERS:
        _reads(b, axi, getattr(dut, READERS[unit]), flush, place)
        m.d.comb += [Assert(~axi.aw.valid), Assert(~axi.w.valid)]
        channel, least = axi.ar, 0
    else:
        _writes(b, axi, getattr(dut, WRITERS[unit]), flush, place, dut.error.valid)
        m.d.comb += Assert(~axi.ar.valid)
        channel, least = axi.aw, WRITE_BASE

    with m.If(channel.valid):
        offset = (channel.payload.addr - BASE)[:ADDRESS_BITS]
        size = (channel.payload.len + 1) * BYTES
        m.d.comb += Assert((offset >= least) & (offset + size <= LIMIT))
    # After an error or a flush nothing starts. An error names the requester, and stands.
    with m.If(channel.valid & ~b.before(channel.valid & ~channel.ready)):
        m.d.comb += Assert(~b.before(dut.error.valid | flush))
    with m.If(dut.error.valid):
        m.d.comb += Assert(dut.error.unit == unit)
    error = dut.error.as_value()
    with m.If(b.before(dut.error.valid & ~flush)):
        m.d.comb += Assert(error == b.before(error))
    m.d.comb += Cover(dut.error.valid & dut.idle)


def _reads(b, axi, channel, flush, place):
    m = b.m
    content = b.constant(BITS, "content")  # what a read finds at `place`
    queue = Queue(b, axi.ar, axi.r.valid)
    m.d.comb += [
        axi.r.valid.eq(b.free(1, "r_valid") & queue.some),
        axi.r.payload.data.eq(Mux(queue.offset == place, content, b.free(BITS, "r_data"))),
        axi.r.payload.resp.eq(b.free(2, "r_resp")),
        axi.r.payload.last.eq(queue.last),
        Assert(axi.r.ready),
    ]
    given = channel.data.valid & channel.data.ready
    descriptor = Descriptor(b, channel, given, flush)
    sink(b, channel.data, drop=flush)
    with m.If(channel.data.valid & ~flush):
        m.d.comb += Assert(descriptor.left != 0)
        with m.If(descriptor.at == place):
            m.d.comb += Assert(channel.data.payload == content)
    # Beats become words within three cycles, until the first that is bad or flushed.
    arrived, words = Signal(4), Signal(4)
    clean = Signal(init=1)
    m.d.sync += [arrived.eq(arrived + axi.r.valid), words.eq(words + given)]
    with m.If(flush | (axi.r.valid & axi.r.payload.resp[1])):
        m.d.sync += clean.eq(0)
    with m.If(clean & (b.before(b.before(arrived)) > words)):
        m.d.comb += Assert(channel.data.valid)
    m.d.comb += Cover(given & (descriptor.left == 1) & b.before(given))


def _writes(b, axi, channel, flush, place, error):
    m = b.m
    moved = axi.w.valid & axi.w.ready
    queue = Queue(b, axi.aw, moved)
    sink(b, axi.w)
    owed = Signal(3)  # answers to bursts whose last beat has moved
    m.d.comb += [
        Assume(~axi.w.ready | queue.some),  # data are taken after their address
        axi.b.valid.eq(b.free(1, "b_valid") & (owed != 0)),
        axi.b.payload.resp.eq(b.free(2, "b_resp")),
        Assert(axi.b.ready),
    ]
    m.d.sync += owed.eq(owed + (moved & axi.w.payload.last) - axi.b.valid)
    with m.If(moved):
        m.d.comb += Assert(axi.w.payload.last == queue.last)

    source(b, channel.data, drop=flush)
    pushed = channel.data.valid & channel.data.ready
    descriptor = Descriptor(b, channel, pushed, flush, channel.idle)
    m.d.comb += Assume(~channel.data.valid | (descriptor.left != 0))
    stored, expected = Signal(BITS), Signal(BITS)
    for write, offset, payload, strobe, to in (
        (moved, queue.offset, axi.w.payload.data, axi.w.payload.strb, stored),
        (pushed, descriptor.at, channel.data.payload.data, channel.data.payload.strobe, expected),
    ):
        for lane in range(BYTES):
            with m.If(write & (offset == place) & strobe[lane]):
                m.d.sync += to.word_select(lane, 8).eq(payload.word_select(lane, 8))
    cut = Signal()  # a flush cut the writing short
    with m.If(flush & ~channel.idle):
        m.d.sync += cut.eq(1)
    finished = channel.idle & (descriptor.left == 0) & ~error & ~cut
    with m.If(finished):
        m.d.comb += Assert(stored == expected)
    m.d.comb += Cover(finished & (stored == 0xA5A5))


PROOFS = [Proof(Dma, bench, (unit,), 16, bounded=True) for unit in range(len(READERS | WRITERS))]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[LOGITS], 16),
    bugs=[
        (
            PROOFS[LOAD],
            Bug(
                "channels crossed",
                'getattr(port, f"fill{n}"), channel.fill',
                'getattr(port, f"fill{n ^ 1}"), channel.fill',
            ),
        ),
        (
            PROOFS[KV],
            Bug("an error stops nothing", "port.halt.eq(errors.o.valid)", "port.halt.eq(0)"),
        ),
        (
            PROOFS[LOGITS],
            Bug("writes anywhere", "write.lower.eq(self.write_base)", "write.lower.eq(0)"),
        ),
        (
            PROOFS[KV_WRITE],
            Bug("wrong requester named", "[KV_WRITE, LOGITS]", "[LOGITS, KV_WRITE]"),
        ),
    ],
    bug_depth=16,
)
