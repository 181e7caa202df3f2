"""Runs of bytes, at any address, on an AXI4 master."""

from __future__ import annotations

from typing import Any

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..axi.bus import AXI4Signature
from ..axi.read_port import ReadPort
from ..axi.reader import ReadChannel
from ..axi.report import FirstError, error_layout
from ..axi.write_port import WritePort
from ..axi.writer import WriteChannel
from .runs import RunReader, RunWriter, run_layout


class MemoryPort(Component):
    """Reads and writes runs of bytes of a memory of `size` bytes at bus address `base`.

    A run becomes bursts of at most `burst_beats` whole words; bytes that are not its own are
    skipped, or kept by the strobes. Data that the bus gives are always taken, and data are at hand
    when their address is offered, so the port never holds the bus up.

    An access outside of the memory, or one that the bus answers with an error, is kept in `error`
    (its address is the burst's offset) and ends all runs: no more bytes are given, those to be
    written are taken and dropped. `flush` (a strobe) takes back to the beginning, which is reached
    when `idle` is high again.

    Throughput: a byte a cycle, and a cycle for each word. Latency: that of runs, channels and
    ports (see there). Back-pressure: `read_data` waits as long as one likes. Reset: idle.

    Ports
    -----
    read, read_data : a run, and its bytes. write, write_data : the same; a run is taken when the
        one before has all its bytes.
    idle : every run that was taken is on the other side: read, or acknowledged by the memory.
    """

    read: stream.Interface
    read_data: stream.Interface
    write: stream.Interface
    write_data: stream.Interface
    error: data.View
    flush: Signal
    idle: Signal
    m_axi: Any

    def __init__(self, bus_bits: int, burst_beats: int, base: int, size: int) -> None:
        if base % 4096:
            raise ValueError(f"base is {base:#x}: make it a multiple of 4096")
        if not 0 < size < 1 << 32:
            raise ValueError(f"size is {size}: make it less than 4 GiB")
        self._bus_bits = bus_bits
        self._burst_beats = burst_beats
        self._base = base
        self._limit = size
        super().__init__(
            {
                "read": In(stream.Signature(run_layout())),
                "read_data": Out(stream.Signature(8)),
                "write": In(stream.Signature(run_layout())),
                "write_data": In(stream.Signature(8)),
                "error": Out(error_layout()),
                "flush": In(1),
                "idle": Out(1),
                "m_axi": Out(AXI4Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, beats = self._bus_bits, self._burst_beats
        m.submodules.errors = errors = FirstError(2)
        m.submodules.read_port = reads = ReadPort(bits, [0])
        m.submodules.write_port = writes = WritePort(bits, [0])
        reader = ReadChannel(bits, beats, beats)
        writer = WriteChannel(bits, beats, beats)
        source = RunReader(bits)
        sink = RunWriter(bits)
        for name, part in (
            ("reader", reader), ("writer", writer), ("source", source), ("sink", sink),
        ):  # fmt: skip
            m.submodules[name] = ResetInserter(self.flush)(part)

        connect(m, reads.ar, flipped(self.m_axi.ar))
        connect(m, flipped(self.m_axi.r), reads.r)
        connect(m, writes.aw, flipped(self.m_axi.aw))
        connect(m, writes.w, flipped(self.m_axi.w))
        connect(m, flipped(self.m_axi.b), writes.b)
        connect(m, reader.burst, reads.burst0)
        connect(m, reads.fill0, reader.fill)
        connect(m, writer.burst, writes.burst0)
        connect(m, writer.word, writes.word0)
        m.d.comb += writer.answered.eq(writes.answered0)
        ports: tuple[ReadPort | WritePort, ...] = (reads, writes)
        for n, port in enumerate(ports):
            m.d.comb += [
                port.base.eq(self._base),
                port.limit.eq(self._limit),
                port.flush.eq(self.flush),
                port.halt.eq(errors.o.valid),
                getattr(errors, f"i{n}").eq(port.error),
            ]
        connect(m, flipped(self.read), source.run)
        connect(m, source.channel, reader.channel)
        connect(m, source.o, flipped(self.read_data))
        connect(m, flipped(self.write), sink.run)
        connect(m, sink.channel, writer.channel)
        m.d.comb += [
            sink.i.valid.eq(self.write_data.valid & ~errors.o.valid),
            sink.i.payload.eq(self.write_data.payload),
            self.write_data.ready.eq(sink.i.ready | errors.o.valid),
            errors.clear.eq(self.flush),
            self.error.eq(errors.o),
            self.idle.eq(~source.busy & ~sink.busy & reads.idle & writes.idle),
        ]
        return m
