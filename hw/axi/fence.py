"""The fence: offsets become bus addresses, and what lies outside the image is marked."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .bus import ADDRESS_BITS, PAGE_BYTES


def request_layout(sources: int) -> data.StructLayout:
    """A burst and the number of the channel that wants it."""
    return data.StructLayout(
        {"address": unsigned(32), "beats": unsigned(9), "source": range(max(sources, 2))}
    )


def access_layout(sources: int) -> data.StructLayout:
    """A burst with its bus address; only those with `ok` may reach the bus."""
    return data.StructLayout(
        {
            "addr": unsigned(ADDRESS_BITS),
            "address": unsigned(32),
            "beats": unsigned(9),
            "source": range(max(sources, 2)),
            "ok": unsigned(1),
        }
    )


def reference(address: int, beats: int, bus_bytes: int, lower: int, limit: int) -> bool:
    """Whether a burst may reach the bus, the base being at a page."""
    return address % bus_bytes == 0 and address >= lower and address + beats * bus_bytes <= limit


class Fence(Component):
    """Adds `base` to offsets and checks that lower <= offset, offset + bytes <= limit, and that
    the offset is aligned to the bus word and `base` to a page, since bursts are cut by offset.

    `base`, `lower` and `limit` are steady while bursts are inside. Latency: three cycles;
    throughput: one burst a cycle. Back-pressure: a stage moves when the next one is free. Reset
    drops what is inside.
    """

    LATENCY = 3

    i: stream.Interface
    o: stream.Interface
    base: Signal
    lower: Signal
    limit: Signal

    def __init__(self, bus_bits: int, sources: int) -> None:
        self._bus_bits = bus_bits
        self._sources = sources
        super().__init__(
            {
                "i": In(stream.Signature(request_layout(sources))),
                "o": Out(stream.Signature(access_layout(sources))),
                "base": In(ADDRESS_BITS),
                "lower": In(32),
                "limit": In(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = exact_log2(self._bus_bits // 8)
        request = Signal(request_layout(self._sources))
        access = Signal(access_layout(self._sources))
        end = Signal(33)
        low = Signal()  # below the window, or not aligned
        page_offset = self.base[: exact_log2(PAGE_BYTES)]

        valid = Signal(3)
        ready = Signal(4)
        m.d.comb += ready[3].eq(self.o.ready)
        for stage in range(3):
            m.d.comb += ready[stage].eq(~valid[stage] | ready[stage + 1])
            with m.If(ready[stage]):
                m.d.sync += valid[stage].eq(valid[stage - 1] if stage else self.i.valid)
        m.d.comb += [self.i.ready.eq(ready[0]), self.o.valid.eq(valid[2])]

        with m.If(ready[0]):
            m.d.sync += request.eq(self.i.payload)
        with m.If(ready[1]):
            m.d.sync += [
                access.addr.eq(self.base + request.address),
                access.address.eq(request.address),
                access.beats.eq(request.beats),
                access.source.eq(request.source),
                end.eq(request.address + (request.beats << shift)),
                low.eq(
                    (request.address < self.lower)
                    | request.address[:shift].any()
                    | page_offset.any()
                ),
            ]
        with m.If(ready[2]):
            m.d.sync += [
                self.o.payload.eq(access),
                self.o.payload.ok.eq(~low & (end <= self.limit)),
            ]
        return m
