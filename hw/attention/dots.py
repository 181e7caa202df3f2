"""q.k of items: the first stage of attention."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import delay, register
from ..modules import ModuleLibrary
from .geometry import BUFFERED, ITEMS, LEAST_DOT_PERIOD
from .mac import DotRow
from .placed import place_rows
from .shape import DISTRIBUTED, READ_LATENCY, AttentionShape


class DotStage(Component):
    """Makes the dot products of items in order; keeps those of BUFFERED items.

    An item that is `described` starts when its block is on chip (`valid`, a bit a slot) and one of
    the items before was read to its end (`read` counts these, modulo 2 * ITEMS). For each word of
    the head the rows' words of Q are taken, one a cycle, then K steps by. `dots` says how many
    items are there to be read; `dot` gives those of a row and step of item `index`, in the cycle of
    the address.

    An item takes one cycle and head_beats * max(steps, rows, LEAST_DOT_PERIOD), and its dot
    products are there READ_LATENCY + rows + DotRow.latency + 2 cycles after the last step. `moved`
    is high while it steps. Reset: no item.
    """

    def __init__(self, shape: AttentionShape, library: ModuleLibrary | None = None) -> None:
        self._shape, self._library = s, _ = shape, library
        count = range(2 * ITEMS)
        codes = data.ArrayLayout(signed(16), s.dims)
        dots = data.ArrayLayout(signed(s.dot_bits), s.positions)
        index = Out(s.index)
        super().__init__(
            {
                "head_beats": In(range(s.beats + 1)),
                "described": In(count),
                "read": In(count),
                "dots": Out(count),
                "valid": In(s.slots),
                "moved": Out(1),
                "item": Out(Signature({"index": index, "data": In(s.item())})),
                "row": Out(Signature({"index": index, "lane": Out(s.lane), "data": In(s.q_row)})),
                "q": Out(Signature({"row": Out(s.q_row), "beat": Out(s.beat), "data": In(codes)})),
                "k": Out(
                    Signature(
                        {
                            "slot": Out(s.slot),
                            "step": Out(s.step),
                            "beat": Out(s.beat),
                            "data": In(data.ArrayLayout(codes, s.positions)),
                        }
                    )
                ),
                "dot": In(
                    Signature(
                        {"index": index, "lane": Out(s.lane), "step": Out(s.step), "data": In(dots)}
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self._shape
        started = Signal(range(2 * ITEMS))
        period = max(s.steps, s.rows, LEAST_DOT_PERIOD)
        u = Signal(range(period))
        beat = Signal(s.beat)
        running = Signal()
        item = Signal(s.item())
        last_u = Signal(range(period))
        last_beat = Signal(s.beat)

        here = self.item.data
        buffered = (started - self.read)[: ITEMS.bit_length()]
        ready = self.valid.bit_select(here.slot, 1)
        m.d.comb += self.item.index.eq(started)
        with m.If(running):
            m.d.sync += u.eq(u + 1)
            with m.If(u == last_u):
                m.d.sync += [u.eq(0), beat.eq(beat + 1)]
                with m.If(beat == last_beat):
                    m.d.sync += [running.eq(0), started.eq(started + 1)]
        with m.Elif((started != self.described) & (buffered < BUFFERED) & ready):
            m.d.sync += [running.eq(1), item.eq(here), u.eq(0), beat.eq(0)]
            m.d.sync += last_beat.eq(self.head_beats - 1)
            least = max(s.rows, LEAST_DOT_PERIOD)
            m.d.sync += last_u.eq(Mux(here.steps > least, here.steps, least) - 1)

        # Q: the rows' words one by one; then K.
        index = started[: len(self.item.index)]
        m.d.comb += [
            self.row.index.eq(index),
            self.row.lane.eq(u),
            self.q.row.eq(register(m, self.row.data)),
            self.q.beat.eq(register(m, beat)),
        ]
        taking = running & (u < s.rows)
        # The row's number takes a cycle, its word READ_LATENCY.
        take = [
            delay(m, taking & (u == a), 1 + READ_LATENCY, reset_less=True) for a in range(s.rows)
        ]
        step = Signal(
            data.StructLayout(
                {
                    "en": 1,
                    "index": s.index,
                    "slot": s.slot,
                    "step": s.step,
                    "beat": s.beat,
                    "ends": 1,  # the item
                    "last_beat": 1,
                }
            )
        )
        at_last_beat = beat == last_beat
        m.d.comb += [
            step.en.eq(running & (u < item.steps)),
            step.index.eq(index),
            step.slot.eq(item.slot),
            step.step.eq(u),
            step.beat.eq(beat),
            step.ends.eq(at_last_beat & (u == item.steps - 1)),
            self.moved.eq(running),
        ]
        # All rows' words have come before K's first meets them.
        step = delay(m, step, 1 + s.rows)
        m.d.comb += [
            self.k.slot.eq(step.slot),
            self.k.step.eq(step.step),
            self.k.beat.eq(step.beat),
        ]
        move = delay(m, step.en & (step.step == 0), READ_LATENCY, reset_less=True)

        # Partial dot products of a step wait for the next word of the head.
        to_add = READ_LATENCY + DotRow.add_delay(s)
        to_dot = READ_LATENCY + DotRow.latency(s)
        buffer_bits = BUFFERED.bit_length() - 1
        address = Cat(step.step, step.index[:buffer_bits])
        add_at = delay(m, address, to_add, reset_less=True)
        add = delay(m, step.beat != 0, to_add, reset_less=True)
        dot_at = delay(m, address, to_dot, reset_less=True)
        dot_en = delay(m, step.en, to_dot)
        read_at = Cat(self.dot.step, self.dot.index[:buffer_bits])
        rows = place_rows(m, self._library, "dot", DotRow, s)
        read = Array(Signal(s.positions * s.dot_bits, name=f"dots{a}") for a in range(s.rows))
        for a, row in enumerate(rows):
            m.submodules[f"dots{a}"] = dots = memory.Memory(
                shape=s.positions * s.dot_bits,
                depth=1 << len(address),
                init=[],
                attrs=DISTRIBUTED,
            )
            write = dots.write_port()
            partial, out = dots.read_port(domain="comb"), dots.read_port(domain="comb")
            m.d.comb += [
                row.q.eq(self.q.data),
                row.take.eq(take[a]),
                row.move.eq(move),
                row.k.eq(self.k.data),
                partial.addr.eq(add_at),
                row.partial.eq(partial.data),
                row.add.eq(add),
                write.addr.eq(dot_at),
                write.data.eq(row.dot),
                write.en.eq(dot_en),
                out.addr.eq(read_at),
                read[a].eq(out.data),
            ]
        m.d.comb += self.dot.data.eq(read[self.dot.lane])
        with m.If(delay(m, step.en & step.ends, to_dot + 1)):
            m.d.sync += self.dots.eq(self.dots + 1)
        return m
