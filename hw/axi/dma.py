"""The DMA: all requesters of the accelerator on their memory ports."""

from __future__ import annotations

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..config import AcceleratorConfig
from ..interfaces import ReadChannelSignature, WriteChannelSignature
from .bus import ADDRESS_BITS, AXI4Signature
from .read_port import ReadPort
from .reader import ReadChannel
from .report import FirstError, error_layout
from .write_port import WritePort
from .writer import WriteChannel

WEIGHTS, KV, LOAD, PROGRAM, KV_WRITE, LOGITS = range(6)
"""Requesters, as ERROR_UNIT numbers them."""

BUFFER_BURSTS = {"kv": 2, "load": 1, "program": 1, "weights": 2}
"""Bursts that a read channel's buffer holds, in the order of priority, highest first. Two hide
a latency of up to burst_beats - 10 cycles; the others are short or rare."""

_UNIT = {"kv": KV, "load": LOAD, "program": PROGRAM, "weights": WEIGHTS}


class Dma(Component):
    """Read and write channels on `config.ports` AXI4 masters, behind the image's fence.

    Every port reads weights and KV; port 0 also reads the program and rows, and does all writing
    (`kv_write` before `logits`). Priority, bursts, latency: see ReadPort, WritePort and their
    channels; a read takes eleven cycles from descriptor to AR and three from R to data.

    The first error is kept in `error` (its `valid` stays high) until `flush` or reset, and stops
    all ports from starting bursts. `flush` (a strobe or longer) drops all descriptors and buffered
    data; what is outstanding on the bus runs to its end unseen, and new descriptors wait for that.

    Ports
    -----
    weights{p}, kv{p} : read channels of port p; load, program : of port 0.
    kv_write, logits : write channels of port 0.
    base, limit, write_base : bus address of the image, its size, lowest offset to be written.
        Steady while descriptors are in progress.
    read_beats, write_beats : beats of this cycle, all ports together.
    idle : nothing is outstanding on the bus.
    outstanding : unit and address of a burst that is, the oldest of its port; no code.
    m_axi{p} : masters.
    """

    base: Signal
    limit: Signal
    write_base: Signal
    flush: Signal
    error: data.View
    read_beats: Signal
    write_beats: Signal
    idle: Signal
    outstanding: data.View

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        read = ReadChannelSignature(config.bus_bits)
        write = WriteChannelSignature(config.bus_bits)
        ports: dict = {}
        for p in range(config.ports):
            ports |= {name + suffix: In(read) for name, suffix in self._readers(p)}
            ports[f"m_axi{p}"] = Out(AXI4Signature(config.bus_bits))
        super().__init__(
            {
                **ports,
                "kv_write": In(write),
                "logits": In(write),
                "base": In(ADDRESS_BITS),
                "limit": In(32),
                "write_base": In(32),
                "flush": In(1),
                "error": Out(error_layout()),
                "read_beats": Out(range(config.ports + 1)),
                "write_beats": Out(1),
                "idle": Out(1),
                "outstanding": Out(error_layout()),
            }
        )

    @staticmethod
    def _readers(port: int) -> list[tuple[str, str]]:
        """Read channels of a port by priority, and the suffixes of their names."""
        names = [
            (name, "") if name in ("load", "program") else (name, str(port))
            for name in BUFFER_BURSTS
        ]
        return [(name, suffix) for name, suffix in names if suffix or port == 0]

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        m.submodules.errors = errors = FirstError(c.ports + 1)
        reads = []
        for p in range(c.ports):
            readers = self._readers(p)
            axi = getattr(self, f"m_axi{p}")
            port = m.submodules[f"read{p}"] = ReadPort(c.bus_bits, [_UNIT[n] for n, _ in readers])
            reads.append(port)
            connect(m, port.ar, flipped(axi.ar))
            connect(m, flipped(axi.r), port.r)
            for n, (name, suffix) in enumerate(readers):
                channel = ReadChannel(
                    c.bus_bits, c.burst_beats, BUFFER_BURSTS[name] * c.burst_beats
                )
                m.submodules[name + suffix] = ResetInserter(self.flush)(channel)
                connect(m, flipped(getattr(self, name + suffix)), channel.channel)
                connect(m, channel.burst, getattr(port, f"burst{n}"))
                connect(m, getattr(port, f"fill{n}"), channel.fill)

        m.submodules.write = write = WritePort(c.bus_bits, [KV_WRITE, LOGITS])
        for name in ("aw", "w"):
            connect(m, getattr(write, name), flipped(getattr(self.m_axi0, name)))
        connect(m, flipped(self.m_axi0.b), write.b)
        for n, name in enumerate(("kv_write", "logits")):
            channel = WriteChannel(c.bus_bits, c.burst_beats, c.burst_beats)
            m.submodules[name] = ResetInserter(self.flush)(channel)
            connect(m, flipped(getattr(self, name)), channel.channel)
            connect(m, channel.burst, getattr(write, f"burst{n}"))
            connect(m, channel.word, getattr(write, f"word{n}"))
            m.d.comb += channel.answered.eq(getattr(write, f"answered{n}"))

        ports: list[Component] = [write, *reads]
        for n, port in enumerate(ports):
            m.d.comb += [
                port.base.eq(self.base),
                port.limit.eq(self.limit),
                port.flush.eq(self.flush),
                port.halt.eq(errors.o.valid),
                getattr(errors, f"i{n}").eq(port.error),
            ]
        m.d.sync += self.outstanding.valid.eq(0)
        for port in reversed(ports):
            with m.If(port.waiting.valid):
                m.d.sync += self.outstanding.eq(port.waiting)
        m.d.comb += [
            write.lower.eq(self.write_base),
            errors.clear.eq(self.flush),
            self.error.eq(errors.o),
            self.idle.eq(Cat(port.idle for port in ports).all()),
        ]
        m.d.sync += [
            self.read_beats.eq(sum(port.beat for port in reads)),
            self.write_beats.eq(write.beat),
        ]
        return m
