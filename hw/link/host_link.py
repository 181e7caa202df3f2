"""The serial host link: a UART in front of registers and memory."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..axi.bus import AXI4LiteSignature, AXI4Signature
from .executor import Executor
from .frame_receiver import FrameReceiver
from .frame_sender import FrameSender
from .memory_port import MemoryPort
from .register_master import RegisterMaster
from .reply_buffer import ReplyBuffer
from .uart import UartReceiver, UartTransmitter


class LinkCore(Component):
    """Requests in, replies out, as octets of the line (protocol.py); registers and memory behind.

    `base` and `size` are the memory that hosts may use, at its bus address; requests count from
    its start. Throughput and latency: those of the parts. Back-pressure: none at `i`; what comes
    while the buffer is full is dropped, and the host sends it again. Reset: no session, nothing
    buffered.
    """

    i: stream.Interface
    o: stream.Interface
    irq: Signal
    axil: Any
    m_axi: Any

    def __init__(
        self, clock_hz: int, bus_bits: int, burst_beats: int, base: int, size: int
    ) -> None:
        self._executor = Executor(clock_hz, base, size)
        self._memory = MemoryPort(bus_bits, burst_beats, base, size)
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "o": Out(stream.Signature(8)),
                "irq": In(1),
                "axil": Out(AXI4LiteSignature()),
                "m_axi": Out(AXI4Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.executor = executor = self._executor
        m.submodules.registers = registers = RegisterMaster()
        m.submodules.memory = memory = self._memory
        m.submodules.reply = reply = ReplyBuffer()
        m.submodules.sender = sender = FrameSender()
        connect(m, flipped(self.i), receiver.i)
        connect(m, receiver.o, executor.i)
        connect(m, executor.access, registers.i)
        connect(m, registers.o, executor.outcome)
        connect(m, registers.axil, flipped(self.axil))
        for name in ("read", "write", "write_data"):
            connect(m, getattr(executor, name), getattr(memory, name))
        connect(m, memory.read_data, executor.read_data)
        connect(m, memory.m_axi, flipped(self.m_axi))
        connect(m, reply.o, sender.i)
        connect(m, sender.o, flipped(self.o))
        for name in ("put", "octet", "clear", "send", "header", "whole"):
            m.d.comb += getattr(reply, name).eq(getattr(executor, name))
        m.d.comb += [
            executor.length.eq(receiver.length),
            executor.busy.eq(reply.busy),
            executor.error.eq(memory.error),
            executor.idle.eq(memory.idle),
            executor.irq.eq(self.irq),
            memory.flush.eq(executor.flush),
        ]
        return m


class HostLink(Component):
    """A board's end of the serial link.

    Connect `axil` to the accelerator's control port, `irq` to its interrupt, `m_axi` to the
    memory, where the image's bus addresses are those that the accelerator's ports see. The masters
    ask for nothing that they can't take or give at once, so that the memory is never held up for
    the line. Rates: docs/link.md. Reset: synchronous, together with the accelerator and the memory.

    Ports
    -----
    rx, tx : the line; a pin's input buffer and nothing else in front of `rx`.
    """

    rx: Signal
    tx: Signal
    irq: Signal
    axil: Any
    m_axi: Any

    def __init__(
        self,
        clock_hz: int,
        baud: int,
        *,
        bus_bits: int,
        burst_beats: int,
        base: int = 0,
        size: int,
    ) -> None:
        self._core = LinkCore(clock_hz, bus_bits, burst_beats, base, size)
        self._receiver = UartReceiver(clock_hz, baud)
        self._transmitter = UartTransmitter(clock_hz, baud)
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1, init=1),
                "irq": In(1),
                "axil": Out(AXI4LiteSignature()),
                "m_axi": Out(AXI4Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self._core
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        connect(m, receiver.o, core.i)
        connect(m, core.o, transmitter.i)
        connect(m, core.axil, flipped(self.axil))
        connect(m, core.m_axi, flipped(self.m_axi))
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            core.irq.eq(self.irq),
        ]
        return m
