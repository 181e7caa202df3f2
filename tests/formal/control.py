"""ControlPort: every access is answered once, writes change the bytes of their register only."""

from __future__ import annotations

from amaranth import C, Signal
from amaranth.hdl import Assert, Cover

from terntable.hw.axi.bus import Response
from terntable.hw.axi.control import ControlPort
from terntable.hw.config import load_config
from terntable.hw.regs import MAGIC, REGISTERS, VERSION, Access

from .contract import sink, source
from .planted import Bug
from .proof import Proof, Suite


def bench(b, block):
    m = b.m
    config = load_config("test")
    m.submodules.dut = dut = block(config)
    bus = dut.s_axil
    for channel in (bus.aw, bus.w, bus.ar):
        source(b, channel)
    sink(b, bus.b)
    sink(b, bus.r)
    values = {"MAGIC": C(MAGIC, 32), "VERSION": C(VERSION, 32), "CONFIG_HASH": C(config.hash, 32)}
    for register in REGISTERS:
        name = register.name
        if register.access is Access.RO and name not in values:
            value = getattr(dut, name.lower())
            m.d.comb += value.eq(b.free(32, name))
            values[name] = value
        elif register.access is Access.RW:
            values[name] = getattr(dut, name.lower())

    # Writes: address and data are taken together, and answered once before the next ones.
    write = bus.aw.valid & bus.aw.ready
    answered = bus.b.valid & bus.b.ready
    writing = Signal()
    known = Signal()
    m.d.comb += [
        Assert(write == (bus.w.valid & bus.w.ready)),
        Assert(~(write & writing)),
        Assert(bus.b.valid == writing),
    ]
    with m.If(answered):
        m.d.sync += writing.eq(0)
    with m.If(write):
        m.d.sync += [writing.eq(1), known.eq(_is_register(bus.aw.payload.addr))]
    with m.If(bus.b.valid):
        ok = bus.b.payload.resp == Response.OKAY.value
        m.d.comb += Assert(ok == known)
        m.d.comb += Assert(ok | (bus.b.payload.resp == Response.SLVERR.value))

    # Registers hold what was written to them, byte by byte, and CONTROL for one cycle.
    for register in REGISTERS:
        hit = write & (bus.aw.payload.addr >> 2 == register.address >> 2)
        strobe, word = bus.w.payload.strb, bus.w.payload.data
        if register.access is Access.RW:
            expected = Signal(32, name=f"expected_{register.name}")
            for lane in range(4):
                with m.If(hit & strobe[lane]):
                    m.d.sync += expected.word_select(lane, 8).eq(word.word_select(lane, 8))
            m.d.comb += Assert(values[register.name] == expected)
        elif register.access is Access.WO:
            strobed = b.before(hit & strobe[0])
            with m.If(strobed):
                m.d.comb += Assert(dut.control == b.before(word)[: len(dut.control)])
            with m.Else():
                m.d.comb += Assert(dut.control == 0)

    # Reads: one at a time, answered in the second cycle with the value of the first.
    read = bus.ar.valid & bus.ar.ready
    given = bus.r.valid & bus.r.ready
    reading = Signal()
    index = Signal(6)
    m.d.comb += Assert(~(read & reading))
    with m.If(given):
        m.d.sync += reading.eq(0)
    with m.If(read):
        m.d.sync += [reading.eq(1), index.eq(bus.ar.payload.addr >> 2)]
    m.d.comb += [
        Assert(~bus.r.valid | reading),
        Assert(bus.r.valid | ~(reading & b.before(reading))),
    ]
    value = Signal(32)
    with m.Switch(index):
        for register in REGISTERS:
            with m.Case(register.address >> 2):
                m.d.comb += value.eq(values.get(register.name, 0))
    asked = b.before(read)
    with m.If(b.before(asked)):
        ok = bus.r.payload.resp == Response.OKAY.value
        m.d.comb += [
            Assert(bus.r.valid),
            Assert(bus.r.payload.data == b.before(value)),
            Assert(ok == _is_register(index << 2)),
            Assert(ok | (bus.r.payload.resp == Response.SLVERR.value)),
        ]

    m.d.comb += [
        b.invariant(b.probe("dut.asked", 1) == asked),
        b.invariant(reading == (asked | bus.r.valid)),
    ]
    with m.If(asked):
        m.d.comb += b.invariant(b.probe("dut.index", 6) == index)
    m.d.comb += [
        Cover(given & (bus.r.payload.data == 0x1234_5678)),
        Cover(answered & ~known & b.before(answered == 0)),
    ]


def _is_register(address):
    return (address >> 2) < len(REGISTERS)


PROOFS = [Proof(ControlPort, bench, (), 3)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 10),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("strobes ignored", "with m.If(bus.w.payload.strb[lane]):", "with m.If(1):"),
            Bug("answer lost", "bus.w.valid & ~bus.b.valid", "bus.w.valid"),
            Bug("reads overtake", "awake & ~asked & ~bus.r.valid", "awake & ~bus.r.valid"),
            Bug("control sticks", "m.d.sync += self.control.eq(0)", "pass"),
        )
    ],
)
