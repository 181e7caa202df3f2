"""Descriptors cut into the bursts that AXI allows."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .bus import PAGE_BYTES


def descriptor_layout() -> data.StructLayout:
    """What a channel is asked for: consecutive bus words from an offset on."""
    return data.StructLayout({"address": unsigned(32), "beats": unsigned(24)})


def burst_layout() -> data.StructLayout:
    """A burst: offset from the image's base, and 1 to 256 beats."""
    return data.StructLayout({"address": unsigned(32), "beats": unsigned(9)})


def reference(address: int, beats: int, bus_bytes: int, burst_beats: int) -> list[tuple[int, int]]:
    """Bursts (address, beats) of a descriptor."""
    bursts = []
    while beats:
        page = (PAGE_BYTES - address % PAGE_BYTES) // bus_bytes
        size = min(beats, burst_beats, page)
        bursts.append((address, size))
        address = (address + size * bus_bytes) % (1 << 32)
        beats -= size
    return bursts


class BurstSplitter(Component):
    """Cuts a descriptor into bursts of at most `burst_beats`, none across a 4 KiB page.

    Latency: three cycles from a descriptor to its first burst; then at most one burst every three
    cycles, which keeps the bus busy with bursts of three beats and more. A descriptor of no beats
    is taken and yields nothing. `last` goes with the last burst of a descriptor. `busy` is high
    while a descriptor is in progress. Reset drops it.
    """

    LATENCY = 3

    req: stream.Interface
    o: stream.Interface
    last: Signal
    busy: Signal

    def __init__(self, bus_bits: int, burst_beats: int) -> None:
        if not 1 <= burst_beats <= min(256, PAGE_BYTES * 8 // bus_bits):
            raise ValueError(f"a burst of {burst_beats} beats of {bus_bits} bits is too long")
        self._bus_bits = bus_bits
        self._burst_beats = burst_beats
        super().__init__(
            {
                "req": In(stream.Signature(descriptor_layout())),
                "o": Out(stream.Signature(burst_layout())),
                "last": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = exact_log2(self._bus_bits // 8)
        page_beats = PAGE_BYTES >> shift
        address = Signal(32)
        remaining = Signal(24)
        some = Signal()  # a descriptor is in progress
        most = Signal(9)  # beats that the descriptor and the burst limit allow
        page = Signal(range(page_beats + 1))  # beats to the end of the page
        ends = Signal()  # the burst limit allows the rest of the descriptor
        beats = Signal(9)

        m.d.comb += [self.o.payload.address.eq(address), self.o.payload.beats.eq(beats)]
        with m.FSM() as fsm:
            with m.State("NEXT"):
                with m.If(~some):
                    m.d.comb += self.req.ready.eq(1)
                    with m.If(self.req.valid):
                        m.d.sync += [
                            address.eq(self.req.payload.address),
                            remaining.eq(self.req.payload.beats),
                            some.eq(1),
                        ]
                with m.Elif(remaining == 0):
                    m.d.sync += some.eq(0)
                with m.Else():
                    short = remaining < self._burst_beats
                    m.d.sync += [
                        ends.eq(remaining <= self._burst_beats),
                        most.eq(Mux(short, remaining[:9], self._burst_beats)),
                        page.eq(page_beats - address[shift : exact_log2(PAGE_BYTES)]),
                    ]
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += beats.eq(Mux(page < most, page, most))
                m.d.sync += [self.last.eq(ends & (page >= most)), self.o.valid.eq(1)]
                m.next = "ISSUE"
            with m.State("ISSUE"):
                with m.If(self.o.ready):
                    m.d.sync += [
                        self.o.valid.eq(0),
                        address.eq(address + (beats << shift)),
                        remaining.eq(remaining - beats),
                        some.eq(~self.last),
                    ]
                    m.next = "NEXT"
        m.d.comb += self.busy.eq(~fsm.ongoing("NEXT") | some)
        return m
