"""Sides of an AXI4 memory, as a port may meet them: any delays, any answers, in order.

A burst may be answered with any number of beats, which includes the right one.
"""

from __future__ import annotations

from typing import Any

from amaranth import Signal
from amaranth.hdl import Assume

from terntable.sim.formal import Bench

from .contract import sink


def read_memory(b: Bench, port: Any, most: int) -> Signal:
    """Drives `r` and takes `ar`; the number of bursts whose address was taken and whose last beat
    was not given."""
    m = b.m
    sink(b, port.ar)
    owed = Signal(range(most + 3), name="memory_owed")
    payload = port.r.payload
    m.d.comb += [
        port.r.valid.eq(b.free(1, "r_valid")),
        payload.data.eq(b.free(len(payload.data), "r_data")),
        payload.resp.eq(b.free(2, "r_resp")),
        payload.last.eq(b.free(1, "r_last")),
        Assume(~port.r.valid | (owed != 0)),
    ]
    ends = port.r.valid & port.r.ready & payload.last
    m.d.sync += owed.eq(owed + (port.ar.valid & port.ar.ready) - ends)
    return owed


def write_memory(b: Bench, port: Any, most: int) -> tuple[Signal, Signal]:
    """Takes `aw` and `w` and drives `b`; the numbers of addresses, and of last beats, that were
    taken and not answered. An answer needs both."""
    m = b.m
    sink(b, port.aw)
    sink(b, port.w)
    addresses = Signal(range(most + 3), name="memory_addresses")
    lasts = Signal(range(most + 3), name="memory_lasts")
    m.d.comb += [
        port.b.valid.eq(b.free(1, "b_valid")),
        port.b.payload.resp.eq(b.free(2, "b_resp")),
        Assume(~port.b.valid | ((addresses != 0) & (lasts != 0))),
    ]
    answer = port.b.valid & port.b.ready
    last = port.w.valid & port.w.ready & port.w.payload.last
    m.d.sync += [
        addresses.eq(addresses + (port.aw.valid & port.aw.ready) - answer),
        lasts.eq(lasts + last - answer),
    ]
    return addresses, lasts
