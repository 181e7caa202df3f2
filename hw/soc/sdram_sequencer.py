"""Segments become commands of the SDRAM: rows opened ahead, refreshes, start-up."""

from __future__ import annotations

from amaranth import Array, C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .sdram_bus import PRECHARGE_ALL, Command, mode
from .sdram_part import SdramCycles, SdramPart
from .sdram_select import access_layout


class Countdown:
    """A number of cycles that goes by: `over` is high `n` cycles after `start(n)`, and stays."""

    def __init__(self, m: Module, name: str, most: int, first: int = 1) -> None:
        # The sign bit is the answer: no comparison in the path.
        self._m = m
        self._left = Signal(range(-1, max(most - 1, 1)), name=name, init=first - 2)
        self.over = self._left[-1]
        with m.If(~self.over):
            m.d.sync += self._left.eq(self._left - 1)

    def start(self, cycles: int) -> None:
        """In the present condition."""
        self._m.d.sync += self._left.eq(cycles - 2)


class SdramSequencer(Component):
    """Runs segments in order, with open pages: a row stays open until its bank needs another.

    While the words of a segment are transferred, one column command every `burst` cycles, the row
    of the next is opened if its bank is another, in the cycles between. So a stream over
    consecutive rows goes through the banks without gaps; a row of the same bank costs tWR (or
    nothing after a read) + tRP + tRCD. A write after a read waits until the pins are free.

    Every t_refi a refresh is due; it comes after the segment that is transferred, and closes all
    rows. After power-up: t_power_up, PRECHARGE, REFRESHES, mode register; then `ready` is high.

    Latency: five cycles from a segment to its first column command when the row is open, and tRCD
    more, tRP + tRCD more when it has to be opened. Throughput: see above. Back-pressure: `i.ready`
    is low while a segment waits. Reset: starts up again.

    Ports
    -----
    command, ba, a : to the pins, registers.
    column : strobe, with the READ or WRITE.
    access : write, and of the last word of a segment that ends a burst `last`; `bad` of the
        segment. With `column`, which comes a cycle before `command` does.
    """

    REFRESHES = 8

    i: stream.Interface
    ready: Signal
    command: Signal
    ba: Signal
    a: Signal
    column: Signal
    access: data.View

    def __init__(self, part: SdramPart, cycles: SdramCycles, burst: int, beats: int) -> None:
        self._part, self._cycles, self._burst, self._beats = part, cycles, burst, beats
        access = data.StructLayout({"write": unsigned(1), "last": unsigned(1), "bad": unsigned(1)})
        super().__init__(
            {
                "i": In(stream.Signature(access_layout(part, beats))),
                "ready": Out(1),
                "command": Out(Command, init=Command.NOP),
                "ba": Out(part.bank_bits),
                "a": Out(part.row_bits),
                "column": Out(1),
                "access": Out(access),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        part, t, burst = self._part, self._cycles, self._burst
        layout = self.i.payload.shape()
        upcoming = Signal(layout)
        current = Signal(layout)
        transfers, final = Signal(), Signal()

        # What the segment under way does.
        spaced = Countdown(m, "spaced", burst)
        turned = Countdown(m, "turned", t.cas + burst + 1)
        closable = [
            Countdown(m, f"closable{b}", max(t.ras, burst - 1 + t.wr)) for b in range(part.banks)
        ]
        now = current.segment
        ends = self.column & final
        m.d.comb += [
            self.column.eq(transfers & spaced.over & (turned.over | ~current.write)),
            self.access.write.eq(current.write),
            self.access.last.eq(final & now.last),
            self.access.bad.eq(now.bad),
        ]
        with m.If(self.column):
            spaced.start(burst)
            m.d.sync += [
                now.column[exact_log2(burst) :].eq(now.column[exact_log2(burst) :] + 1),
                now.len.eq(now.len - 1),
                final.eq(now.len == 1),
            ]
            with m.If(final):
                m.d.sync += transfers.eq(0)
            with m.If(~current.write):
                turned.start(t.cas + burst + 1)
            for b, bank in enumerate(closable):
                with m.If(now.bank == b):
                    with m.If(current.write):
                        bank.start(max(burst - 1 + t.wr, t.ras - t.rcd))
                    with m.Else():
                        bank.start(max(burst, t.ras - t.rcd))

        # Refreshes.
        due, refresh_taken = Signal(), Signal()
        interval = Signal(range(t.refi), init=t.refi - 1)
        with m.If(refresh_taken):
            m.d.sync += due.eq(0)
        with m.If(~self.ready | (interval == 0)):
            m.d.sync += interval.eq(t.refi - 1)
        with m.Else():
            m.d.sync += interval.eq(interval - 1)
        with m.If(self.ready & (interval == 0)):
            m.d.sync += due.eq(1)

        # What opens the row of the next segment, between the column commands.
        waited = Countdown(m, "waited", max(t.power_up, t.rc, t.mrd), t.power_up)
        command = Signal(Command, init=Command.NOP)
        bank, address = Signal(part.bank_bits), Signal(part.row_bits)
        opened = Signal(part.banks)
        rows = Array(Signal(part.row_bits, name=f"row{b}") for b in range(part.banks))
        is_open, hit, again = Signal(), Signal(), Signal()
        left = Signal(range(self.REFRESHES), init=self.REFRESHES - 1)
        want = upcoming.segment
        may_close = Array(b.over for b in closable)
        all_closable = Cat(*(b.over for b in closable)).all()
        m.d.comb += [command.eq(Command.NOP), bank.eq(want.bank), address.eq(want.row)]
        free = ~self.column

        with m.FSM():
            with m.State("POWER UP"):
                with m.If(waited.over):
                    m.d.comb += [command.eq(Command.PRECHARGE), address.eq(PRECHARGE_ALL)]
                    waited.start(t.rp)
                    m.next = "REFRESH"

            with m.State("MODE"):
                with m.If(waited.over):
                    m.d.comb += [command.eq(Command.LOAD_MODE), address.eq(mode(burst, t.cas))]
                    m.d.comb += bank.eq(0)
                    m.d.sync += self.ready.eq(1)
                    waited.start(t.mrd)
                    m.next = "NEXT"

            with m.State("NEXT"):
                m.d.comb += self.i.ready.eq(waited.over & ~due)
                m.d.sync += [upcoming.eq(self.i.payload), again.eq(0)]
                with m.If(due):
                    m.next = "CLOSE"
                with m.Elif(waited.over & self.i.valid):
                    m.next = "LOOK UP"

            with m.State("LOOK UP"):
                m.d.sync += [
                    is_open.eq(opened.bit_select(want.bank, 1)),
                    hit.eq(rows[want.bank] == want.row),
                ]
                with m.If(waited.over):
                    m.next = "DECIDE"

            with m.State("DECIDE"):
                with m.If(~is_open):
                    m.next = "ACTIVATE"
                with m.Elif(hit):
                    m.next = "GO"
                with m.Else():
                    m.next = "PRECHARGE"

            with m.State("PRECHARGE"):
                used = transfers & (now.bank == want.bank)
                with m.If(free & may_close[want.bank] & ~used):
                    m.d.comb += [command.eq(Command.PRECHARGE), address.eq(0)]
                    waited.start(t.rp)
                    m.next = "ACTIVATE"

            with m.State("ACTIVATE"):
                with m.If(waited.over & free):
                    m.d.comb += command.eq(Command.ACTIVATE)
                    waited.start(max(t.rcd, t.rrd))
                    for b, closing in enumerate(closable):
                        with m.If(want.bank == b):
                            closing.start(t.ras)
                            m.d.sync += [opened[b].eq(1), rows[b].eq(want.row)]
                    m.next = "GO"

            with m.State("GO"):
                m.d.sync += again.eq(1)
                with m.If(due):
                    m.next = "CLOSE"
                with m.Elif(waited.over & (~transfers | ends)):
                    m.d.sync += [
                        current.eq(upcoming),
                        transfers.eq(1),
                        final.eq(want.len == 0),
                    ]
                    m.next = "NEXT"

            with m.State("CLOSE"):
                with m.If(~transfers & waited.over & all_closable):
                    m.d.comb += [command.eq(Command.PRECHARGE), address.eq(PRECHARGE_ALL)]
                    m.d.sync += opened.eq(0)
                    waited.start(t.rp)
                    m.next = "REFRESH"

            with m.State("REFRESH"):
                with m.If(waited.over):
                    m.d.comb += [command.eq(Command.REFRESH), refresh_taken.eq(1)]
                    waited.start(t.rc)
                    with m.If(self.ready):
                        m.next = "NEXT"
                        with m.If(again):
                            m.next = "LOOK UP"
                    with m.Else():
                        m.d.sync += left.eq(left - 1)
                        with m.If(left == 0):
                            m.next = "MODE"

        m.d.sync += [self.command.eq(command), self.ba.eq(bank), self.a.eq(address)]
        with m.If(self.column):
            # A10 low: the row stays open.
            m.d.sync += [
                self.command.eq(Mux(current.write, Command.WRITE, Command.READ)),
                self.ba.eq(now.bank),
                self.a.eq(Cat(now.column, C(0, part.row_bits - part.column_bits))),
            ]
        return m
