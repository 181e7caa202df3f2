"""The control port: the register table behind AXI4-Lite."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from ..regs import ADDRESS_BITS, MAGIC, REGISTERS, VERSION, Access
from .bus import AXI4LiteSignature, Response

CONSTANTS = ("MAGIC", "VERSION", "CONFIG_HASH")


class ControlPort(Component):
    """AXI4-Lite slave with the registers of terntable.hw.regs.

    Every read/write register is an output and every read-only one an input, named as the register
    in lower case; MAGIC, VERSION and CONFIG_HASH are constants. `control` has the bits that were
    written to CONTROL for one cycle, then zero; it reads as zero. Byte strobes are honoured.
    Writing a read-only register has no effect. An address without a register reads as zero, and is
    answered with SLVERR, read or written.

    Latency: outputs change one cycle after a write is taken; a read is answered after two cycles.
    Throughput: a write every two cycles, a read every three. Back-pressure: one access of each kind
    at a time; address and data of a write are taken together. Reset: registers 0, ports not ready.
    """

    control: Signal

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        ports: dict = {}
        for r in REGISTERS:
            if r.access is Access.RW:
                ports[r.name.lower()] = Out(32)
            elif r.access is Access.RO and r.name not in CONSTANTS:
                ports[r.name.lower()] = In(32)
        super().__init__({"s_axil": In(AXI4LiteSignature()), "control": Out(3), **ports})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.s_axil
        constants = {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": self._config.hash}
        index_bits = ADDRESS_BITS - 2
        # In reset nothing may be taken: the answer would be lost.
        awake = Signal()
        m.d.sync += awake.eq(1)

        # Writes.
        write = Signal()
        m.d.comb += [
            write.eq(awake & bus.aw.valid & bus.w.valid & ~bus.b.valid),
            bus.aw.ready.eq(write),
            bus.w.ready.eq(write),
        ]
        m.d.sync += self.control.eq(0)
        with m.If(bus.b.ready):
            m.d.sync += bus.b.valid.eq(0)
        with m.If(write):
            m.d.sync += [bus.b.valid.eq(1), bus.b.payload.resp.eq(Response.OKAY.value)]
            with m.Switch(bus.aw.payload.addr[2:]):
                for r in REGISTERS:
                    with m.Case(r.address >> 2):
                        if r.access is Access.RW:
                            value = getattr(self, r.name.lower())
                            for lane in range(4):
                                with m.If(bus.w.payload.strb[lane]):
                                    m.d.sync += value.word_select(lane, 8).eq(
                                        bus.w.payload.data.word_select(lane, 8)
                                    )
                        elif r.access is Access.WO:
                            with m.If(bus.w.payload.strb[0]):
                                m.d.sync += self.control.eq(bus.w.payload.data)
                with m.Default():
                    m.d.sync += bus.b.payload.resp.eq(Response.SLVERR.value)

        # Reads: address, value, answer.
        index = Signal(index_bits)
        asked = Signal()
        m.d.comb += bus.ar.ready.eq(awake & ~asked & ~bus.r.valid)
        with m.If(bus.r.ready):
            m.d.sync += bus.r.valid.eq(0)
        m.d.sync += asked.eq(bus.ar.valid & bus.ar.ready)
        with m.If(bus.ar.valid & bus.ar.ready):
            m.d.sync += index.eq(bus.ar.payload.addr[2:])
        with m.If(asked):
            m.d.sync += [
                bus.r.valid.eq(1),
                bus.r.payload.data.eq(0),
                bus.r.payload.resp.eq(Response.OKAY.value),
            ]
            with m.Switch(index):
                for r in REGISTERS:
                    with m.Case(r.address >> 2):
                        if r.name in constants:
                            m.d.sync += bus.r.payload.data.eq(constants[r.name])
                        elif r.access is not Access.WO:
                            m.d.sync += bus.r.payload.data.eq(getattr(self, r.name.lower()))
                with m.Default():
                    m.d.sync += bus.r.payload.resp.eq(Response.SLVERR.value)
        return m
