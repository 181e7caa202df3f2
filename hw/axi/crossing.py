"""An AXI4 port between clocks."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Value
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import Component, In, Out

from .bus import AXI4Signature


class Crossing(Component):
    """The master's side runs in domain `master`, the slave's in `slave`; their clocks need have
    nothing to do with each other.

    A queue of DEPTH entries a channel. Latency: one cycle of the side that writes and three of the
    side that reads, each way. Throughput: a transfer a cycle of the slower clock. Back-pressure: on
    all channels. Reset: empty; both sides are to be reset together.
    """

    DEPTH = 16

    s_axi: Any
    m_axi: Any

    def __init__(self, bus_bits: int, master: str, slave: str) -> None:
        self.domains = {"s_axi": master, "m_axi": slave}
        signature = AXI4Signature(bus_bits)
        super().__init__({"s_axi": In(signature), "m_axi": Out(signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in ("ar", "aw", "w", "r", "b"):
            there, back = getattr(self.s_axi, name), getattr(self.m_axi, name)
            forward = name not in ("r", "b")
            i, o = (there, back) if forward else (back, there)
            domains = list(self.domains.values() if forward else reversed(self.domains.values()))
            m.submodules[name] = queue = AsyncFIFO(
                width=len(Value.cast(i.payload)),
                depth=self.DEPTH,
                w_domain=domains[0],
                r_domain=domains[1],
            )
            m.d.comb += [
                queue.w_data.eq(i.payload),
                queue.w_en.eq(i.valid),
                i.ready.eq(queue.w_rdy),
                o.payload.eq(queue.r_data),
                o.valid.eq(queue.r_rdy),
                queue.r_en.eq(o.ready),
            ]
        return m
