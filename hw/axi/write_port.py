"""Write port: several write channels on one AXI4 write master."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Array, C, Cat, Module, ResetInserter, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect

from ..regs import Error
from ..skid import Skid
from .bursts import burst_layout
from .bus import ADDRESS_BITS, address_layout, write_layout
from .fence import Fence
from .report import error_layout, report


class WritePort(Component):
    """Arbitrates bursts, checks them against the fence and sends them with their data.

    Channel 0 has the highest priority. A channel offers a burst only with its data at hand, so W is
    never held for a requester. Up to OUTSTANDING bursts are under way, one beat a cycle when the
    bus takes it; data do not wait for their address to be accepted.

    A burst outside the writable window is reported and does not reach the bus; neither does any
    burst while `halt` is high. An error response is reported with the offset of its burst, and not
    acknowledged to the channel. `flush` (a strobe or longer) drops all bursts whose address was not
    offered; the others are filled up with words whose strobes are zero, their answers are dropped,
    and no burst is started before that.

    Latency: six cycles from a channel's burst to AW and seven to W, one from B to `answered`.

    Ports
    -----
    burst{n}, word{n}, answered{n} : of channel n.
    base, lower, limit : the image; the window is [lower, limit).
    error : strobe with its details; `units[n]` is the requester's number of channel n.
    beat : strobe, one data beat was sent.
    idle : nothing is outstanding.
    waiting : unit and address of the oldest burst that is; no code.
    """

    OUTSTANDING = 16
    LATENCY = 6

    aw: stream.Interface
    w: stream.Interface
    b: stream.Interface
    base: Signal
    lower: Signal
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
        word_bits = bus_bits + bus_bits // 8
        super().__init__(
            {
                **{f"burst{n}": In(stream.Signature(burst_layout())) for n in channels},
                **{f"word{n}": In(stream.Signature(word_bits)) for n in channels},
                **{f"answered{n}": Out(1) for n in channels},
                "aw": Out(stream.Signature(address_layout())),
                "w": Out(stream.Signature(write_layout(bus_bits))),
                "b": In(stream.Signature(data.StructLayout({"resp": unsigned(2)}))),
                "base": In(ADDRESS_BITS),
                "lower": In(32),
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
        words = [getattr(self, f"word{n}") for n in range(count)]
        units = Array(C(u, 8) for u in self._units)
        source = range(max(count, 2))

        # Priority.
        fence = Fence(self._bus_bits, count)
        m.submodules.fence = ResetInserter(self.flush)(fence)
        chosen = Skid(fence.i.payload.shape())
        m.submodules.chosen = ResetInserter(self.flush)(chosen)
        connect(m, chosen.o, fence.i)
        m.d.comb += [
            fence.base.eq(self.base),
            fence.lower.eq(self.lower),
            fence.limit.eq(self.limit),
        ]
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

        # Onto the bus: what is owed on W and expected on B is noted when the address is offered.
        owed_layout = data.StructLayout({"source": source, "len": unsigned(8)})
        owner_layout = data.StructLayout({"source": source, "address": unsigned(32)})
        m.submodules.owed = owed = SyncFIFOBuffered(width=owed_layout.size, depth=self.OUTSTANDING)
        m.submodules.owners = owners = SyncFIFO(width=owner_layout.size, depth=self.OUTSTANDING)
        draining = Signal()
        with m.If(self.flush):
            m.d.sync += draining.eq(1)
        with m.Elif(self.idle):
            m.d.sync += draining.eq(0)

        access = fence.o.payload
        stopped = draining | self.flush | self.halt
        go = Signal()
        m.d.comb += [
            # A burst leaves `owed` before it leaves `owners`: room in one is room in both.
            go.eq(
                fence.o.valid
                & access.ok
                & ~stopped
                & owners.w_rdy
                & (~self.aw.valid | self.aw.ready)
            ),
            owed.w_data.eq(Cat(access.source, (access.beats - 1)[:8])),
            owed.w_en.eq(go),
            owners.w_data.eq(Cat(access.source, access.address)),
            owners.w_en.eq(go),
            fence.o.ready.eq(go),
        ]
        with m.If(self.aw.ready):
            m.d.sync += self.aw.valid.eq(0)
        with m.If(go):
            m.d.sync += [
                self.aw.valid.eq(1),
                self.aw.payload.addr.eq(access.addr),
                self.aw.payload.len.eq(access.beats - 1),
            ]

        # Data.
        burst = data.View(owed_layout, owed.r_data)
        sent = Signal(8)
        word = Signal(self._bus_bits + self._bus_bits // 8)
        present = Signal()
        move = Signal()
        for n, channel in enumerate(words):
            with m.If(burst.source == n):
                m.d.comb += [word.eq(channel.payload), present.eq(channel.valid)]
            # `move`, of this channel's words, written out: a level or two less.
            m.d.comb += channel.ready.eq(
                owed.r_rdy
                & (burst.source == n)
                & channel.valid
                & ~draining
                & (~self.w.valid | self.w.ready)
            )
        last = sent == burst.len
        m.d.comb += [
            move.eq(owed.r_rdy & (present | draining) & (~self.w.valid | self.w.ready)),
            owed.r_en.eq(move & last),
            self.beat.eq(self.w.valid & self.w.ready),
        ]
        with m.If(self.w.ready):
            m.d.sync += self.w.valid.eq(0)
        with m.If(move):
            m.d.sync += [
                self.w.valid.eq(1),
                self.w.payload.data.eq(word[: self._bus_bits]),
                self.w.payload.strb.eq(
                    word[self._bus_bits :] & ~draining.replicate(self._bus_bits // 8)
                ),
                self.w.payload.last.eq(last),
                sent.eq(sent + 1),
            ]
            with m.If(last):
                m.d.sync += sent.eq(0)

        # Answers.
        owner = data.View(owner_layout, owners.r_data)
        answered = Signal()
        bad = Signal()
        m.d.comb += self.b.ready.eq(1)
        m.d.sync += [answered.eq(self.b.valid), bad.eq(self.b.payload.resp[1])]  # SLVERR, DECERR
        for n in range(count):
            m.d.comb += getattr(self, f"answered{n}").eq(
                answered & ~bad & ~draining & (owner.source == n)
            )
        m.d.comb += [
            owners.r_en.eq(answered),
            self.idle.eq(~owners.r_rdy),
            self.waiting.valid.eq(owners.r_rdy),
            self.waiting.unit.eq(units[owner.source]),
            self.waiting.address.eq(owner.address),
        ]

        with m.If(answered & bad & ~draining):
            report(m, self.error, Error.WRITE_RESPONSE, units[owner.source], owner.address)
        with m.Elif(fence.o.valid & ~access.ok & ~stopped):
            report(m, self.error, Error.WRITE_FENCE, units[access.source], access.address)
        return m
