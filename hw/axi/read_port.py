"""Read port: several read channels on one AXI4 read master."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Array, C, Module, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect

from ..regs import Error
from ..skid import Skid
from .bursts import burst_layout
from .bus import ADDRESS_BITS, address_layout, read_layout
from .fence import Fence
from .report import error_layout, report


class ReadPort(Component):
    """Arbitrates bursts, checks them against the fence and hands their data back in order.

    Channel 0 has the highest priority. Up to OUTSTANDING bursts are under way, and data are taken
    in every cycle: one beat a cycle when the bus gives it.

    A burst outside the image is reported and does not reach the bus; neither does any burst while
    `halt` is high. A beat that comes with an error response is reported, with the offset of its
    burst; neither it nor any later beat is delivered before a flush. `flush` (a strobe or longer)
    drops all bursts that are not on the bus; data of those that are, and an address that is offered
    already, run to their end and are dropped, and no burst is started before that.

    Latency: six cycles from a channel's burst to AR, one from R to `fill`.

    Ports
    -----
    burst{n}, fill{n} : of channel n.
    base, limit : the image; the window is [0, limit).
    error : strobe with its details; `units[n]` is the requester's number of channel n.
    beat : strobe, one data beat was taken.
    idle : nothing is outstanding.
    waiting : unit and address of the oldest burst that is; no code.
    """

    OUTSTANDING = 16
    LATENCY = 6

    ar: stream.Interface
    r: stream.Interface
    base: Signal
    limit: Signal
    flush: Signal
    halt: Signal
    error: data.View
    beat: Signal
    idle: Signal
    waiting: data.View

    def __init__(self, bus_bits: int, units: Sequence[int]) -> None:
        self._bus_bits = bus_bits
        self._units = tuple(units)
        channels = range(len(self._units))
        super().__init__(
            {
                **{f"burst{n}": In(stream.Signature(burst_layout())) for n in channels},
                **{
                    f"fill{n}": Out(stream.Signature(bus_bits, always_ready=True)) for n in channels
                },
                "ar": Out(stream.Signature(address_layout())),
                "r": In(stream.Signature(read_layout(bus_bits))),
                "base": In(ADDRESS_BITS),
                "limit": In(32),
                "flush": In(1),
                "halt": In(1),
                "error": Out(error_layout()),
                "beat": Out(1),
                "idle": Out(1),
                "waiting": Out(error_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = len(self._units)
        bursts = [getattr(self, f"burst{n}") for n in range(count)]
        units = Array(C(u, 8) for u in self._units)

        # Priority.
        fence = Fence(self._bus_bits, count)
        m.submodules.fence = ResetInserter(self.flush)(fence)
        chosen = Skid(fence.i.payload.shape())
        m.submodules.chosen = ResetInserter(self.flush)(chosen)
        connect(m, chosen.o, fence.i)
        m.d.comb += [fence.base.eq(self.base), fence.limit.eq(self.limit)]
        taken = C(0, 1)
        for n, burst in enumerate(bursts):
            m.d.comb += burst.ready.eq(chosen.i.ready & ~taken & ~self.flush)
            with m.If(burst.valid & ~taken):
                m.d.comb += [
                    chosen.i.valid.eq(~self.flush),
                    chosen.i.payload.address.eq(burst.payload.address),
                    chosen.i.payload.beats.eq(burst.payload.beats),
                    chosen.i.payload.source.eq(n),
                ]
            taken = taken | burst.valid

        # Onto the bus: the owner is noted when the address is offered.
        owner_layout = data.StructLayout({"source": range(max(count, 2)), "address": unsigned(32)})
        m.submodules.owners = owners = SyncFIFO(width=owner_layout.size, depth=self.OUTSTANDING)
        draining = Signal()
        with m.If(self.flush):
            m.d.sync += draining.eq(1)
        with m.Elif(self.idle):
            m.d.sync += draining.eq(0)

        access = fence.o.payload
        owner_in = data.View(owner_layout, owners.w_data)
        stopped = draining | self.flush | self.halt
        go = Signal()
        m.d.comb += [
            go.eq(
                fence.o.valid
                & access.ok
                & ~stopped
                & owners.w_rdy
                & (~self.ar.valid | self.ar.ready)
            ),
            owner_in.source.eq(access.source),
            owner_in.address.eq(access.address),
            owners.w_en.eq(go),
            fence.o.ready.eq(go),
        ]
        with m.If(self.ar.ready):
            m.d.sync += self.ar.valid.eq(0)
        with m.If(go):
            m.d.sync += [
                self.ar.valid.eq(1),
                self.ar.payload.addr.eq(access.addr),
                self.ar.payload.len.eq(access.beats - 1),
            ]

        # Data: room was reserved, so every beat is taken.
        beat = Signal(read_layout(self._bus_bits))
        valid = Signal()
        m.d.comb += self.r.ready.eq(1)
        m.d.sync += [beat.eq(self.r.payload), valid.eq(self.r.valid)]
        owner = data.View(owner_layout, owners.r_data)
        bad = beat.resp[1]  # SLVERR, DECERR
        broken = Signal()  # a beat is missing from here on
        live = valid & ~draining & ~broken
        with m.If(self.flush):
            m.d.sync += broken.eq(0)
        with m.Elif(live & bad):
            m.d.sync += broken.eq(1)
        for n in range(count):
            fill = getattr(self, f"fill{n}")
            m.d.comb += [
                fill.payload.eq(beat.data),
                fill.valid.eq(live & ~bad & (owner.source == n)),
            ]
        m.d.comb += [
            owners.r_en.eq(valid & beat.last),
            self.beat.eq(valid),
            self.idle.eq(~owners.r_rdy),
            self.waiting.valid.eq(owners.r_rdy),
            self.waiting.unit.eq(units[owner.source]),
            self.waiting.address.eq(owner.address),
        ]

        with m.If(live & bad):
            report(m, self.error, Error.READ_RESPONSE, units[owner.source], owner.address)
        with m.Elif(fence.o.valid & ~access.ok & ~stopped):
            report(m, self.error, Error.READ_FENCE, units[access.source], access.address)
        return m
