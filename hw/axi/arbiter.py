"""Several AXI4 masters on one slave."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from .bus import AXI4Signature


class Arbiter(Component):
    """Bursts of all masters, in turn, go to one slave that answers in order.

    Reads and writes are arbitrated apart. Up to OUTSTANDING of each are under way. The words of
    writes follow in the order of their addresses: a master that has had its address taken holds up
    the words of the others until its own have come, and must not wait for them meanwhile.

    Latency: one cycle for addresses, none for words and answers. Throughput: an address and a word
    a cycle. Back-pressure: on all channels. Reset: forgets what is under way; the slave is to be
    reset with it.

    Ports
    -----
    s_axi{n} : of master n.
    m_axi : to the slave.
    """

    OUTSTANDING = 16

    m_axi: Any

    def __init__(self, bus_bits: int, masters: int) -> None:
        self._masters = masters
        super().__init__(
            {
                **{f"s_axi{n}": In(AXI4Signature(bus_bits)) for n in range(masters)},
                "m_axi": Out(AXI4Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sides = [getattr(self, f"s_axi{n}") for n in range(self._masters)]
        bits = max(1, ceil_log2(self._masters))
        m.submodules.readers = readers = SyncFIFO(width=bits, depth=self.OUTSTANDING)
        m.submodules.writers = writers = SyncFIFO(width=bits, depth=self.OUTSTANDING)
        m.submodules.answered = answered = SyncFIFO(width=bits, depth=self.OUTSTANDING)
        self._addresses(m, "ar", [side.ar for side in sides], self.m_axi.ar, [readers])
        self._addresses(m, "aw", [side.aw for side in sides], self.m_axi.aw, [writers, answered])

        # Answers go back to the oldest burst's master.
        for channel, owners in (("r", readers), ("b", answered)):
            answer = getattr(self.m_axi, channel)
            ends = answer.payload.last if channel == "r" else 1
            for n, side in enumerate(sides):
                mine = getattr(side, channel)
                here = owners.r_rdy & (owners.r_data == n)
                m.d.comb += [mine.payload.eq(answer.payload), mine.valid.eq(answer.valid & here)]
                with m.If(here):
                    m.d.comb += answer.ready.eq(mine.ready)
            m.d.comb += owners.r_en.eq(answer.valid & answer.ready & ends)

        w = self.m_axi.w
        for n, side in enumerate(sides):
            with m.If(writers.r_rdy & (writers.r_data == n)):
                m.d.comb += [
                    w.valid.eq(side.w.valid),
                    w.payload.eq(side.w.payload),
                    side.w.ready.eq(w.ready),
                ]
        m.d.comb += writers.r_en.eq(w.valid & w.ready & w.payload.last)
        return m

    def _addresses(
        self,
        m: Module,
        name: str,
        sources: list[stream.Interface],
        o: stream.Interface,
        owners: list[SyncFIFO],
    ) -> None:
        """One of `sources` into the register in front of `o`, beginning behind the last one."""
        count = len(sources)
        last = Signal(range(count), name=f"{name}_last", init=count - 1)
        room = ~o.valid | o.ready
        for fifo in owners:
            room = room & fifo.w_rdy
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.Switch(last):
            for before in range(count):
                with m.Case(before):
                    turn = [sources[(before + 1 + n) % count] for n in range(count)]
                    condition = m.If
                    for source in turn:
                        number = sources.index(source)
                        with condition(source.valid):
                            m.d.comb += source.ready.eq(room)
                            for fifo in owners:
                                m.d.comb += [fifo.w_data.eq(number), fifo.w_en.eq(room)]
                            with m.If(room):
                                m.d.sync += [
                                    o.valid.eq(1),
                                    o.payload.eq(source.payload),
                                    last.eq(number),
                                ]
                        condition = m.Elif
