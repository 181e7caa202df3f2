"""Scores and weights of items: the second stage of attention."""

from __future__ import annotations

from amaranth import C, Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import exact_log2

from ..fp import delay, register
from .denominators import Denominators
from .geometry import BUFFERED, ITEMS
from .maxima import Maxima
from .q_buffer import QBuffer
from .score import ScorePipe
from .shape import DISTRIBUTED, RISE_BITS, SCALE_BITS, WEIGHT_BITS, AttentionShape
from .weights import WeightPipe, entry_layout


class SoftmaxStage(Component):
    """Makes the weights of items in order, a row after the other, `attention_pipes` positions a
    cycle; keeps those of BUFFERED items, and what rows keep from block to block.

    An item starts when its `dots` are there, weights have room (`weighed_out` counts the items
    whose weights were read to their end) and, if it is a tile's last, the dividers have. `read`
    counts the items whose dot products were read, `weights` those whose weights are there, all
    modulo 2 * ITEMS. Nothing waits from there on: a row's scores go through ScorePipe and wait for
    the row's maxima, meet these in WeightPipe, and are summed to the denominator.

    `weight` gives the weights of all rows and positions of a step, position x READ_LATENCY + x
    cycles after the address, and `rise` how far a row's outputs are to be shifted and whether they
    begin, in the cycle of the address. `denominator` (`en` for a cycle) brings each row's of an
    item that `closes`, with `scale`, the power of two that goes with it.

    An item takes a cycle and rows * 32 / attention_pipes; its weights are there `latency` cycles
    after the last of them. Reset: no item.
    """

    _TO_DOTS = 1 + QBuffer.SCALE_LATENCY
    """Cycles from an item's row and step to its scale of Q and dot products."""
    _TO_SCORE = _TO_DOTS + ScorePipe.LATENCY

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        count = range(2 * ITEMS)
        index, lane, step = Out(s.index), Out(s.lane), Out(s.step)
        at_step = {"slot": Out(s.slot), "step": step}
        scales = data.ArrayLayout(32, s.positions)
        super().__init__(
            {
                "dots": In(count),
                "read": Out(count),
                "weighed_out": In(count),
                "weights": Out(count),
                "item": Out(Signature({"index": index, "data": In(s.item())})),
                "row": Out(Signature({"index": index, "lane": lane, "data": In(s.row())})),
                "q_scale": Out(Signature({"row": Out(s.q_row), "data": In(32)})),
                "k_scale": Out(Signature(at_step | {"data": In(scales)})),
                "v_scale": Out(Signature(at_step | {"data": In(scales)})),
                "dot": Out(
                    Signature(
                        {
                            "index": index,
                            "lane": lane,
                            "step": step,
                            "data": In(data.ArrayLayout(signed(s.dot_bits), s.positions)),
                        }
                    )
                ),
                "weight": In(
                    Signature(
                        {
                            "index": index,
                            "step": step,
                            "data": In(
                                data.ArrayLayout(data.ArrayLayout(WEIGHT_BITS, s.positions), s.rows)
                            ),
                        }
                    )
                ),
                "rise": In(
                    Signature(
                        {
                            "index": index,
                            "lane": lane,
                            "data": In(s.rise()),
                        }
                    )
                ),
                "denominator": Out(
                    Signature(
                        {
                            "en": Out(1),
                            "index": index,
                            "lane": lane,
                            "l": Out(s.l_bits),
                            "scale": Out(signed(SCALE_BITS)),
                        }
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, pipes = self._shape, self._shape.config.attention_pipes
        subs = s.positions // pipes  # cycles a step

        slot = self._issue(m)
        # 1: the row's description; its scale of Q comes with the dot products.
        en = delay(m, slot.en, 1)
        slot = register(m, slot)
        row = register(m, self.row.data)
        m.d.comb += self.q_scale.row.eq(row.q_row)
        seen = Signal(pipes)
        for i in range(pipes):
            position = Cat(C(i, exact_log2(pipes)), slot.sub[: exact_log2(subs)], slot.step)
            m.d.comb += seen[i].eq(row.active & (row.limit >= position[:5]))
        early = delay(m, slot, self._TO_DOTS - 2, reset_less=True)  # a cycle before they are used
        m.d.comb += [
            self.dot.index.eq(early.tag.index),
            self.dot.lane.eq(early.tag.lane),
            self.dot.step.eq(early.step),
            self.k_scale.slot.eq(early.slot),
            self.k_scale.step.eq(early.step),
        ]
        late = delay(m, early, ScorePipe.LATENCY, reset_less=True)
        m.d.comb += [self.v_scale.slot.eq(late.slot), self.v_scale.step.eq(late.step)]
        dots = register(m, self.dot.data)
        dot_sub, v_sub = register(m, early.sub), register(m, late.sub)

        # Scores.
        seen = delay(m, seen, self._TO_SCORE - 1, reset_less=True)
        entries = Signal(data.ArrayLayout(entry_layout(), pipes))
        mantissas = []
        for i in range(pipes):
            m.submodules[f"score{i}"] = pipe = ScorePipe(s.dot_bits)
            k_scale, v_scale = Signal(32, name=f"k_scale{i}"), Signal(32, name=f"v_scale{i}")
            for x in range(subs):
                at = x * pipes + i
                with m.If(dot_sub == x):
                    m.d.comb += [pipe.dot.eq(dots[at]), k_scale.eq(self.k_scale.data[at])]
                with m.If(v_sub == x):
                    m.d.comb += v_scale.eq(self.v_scale.data[at])
            m.d.comb += [
                pipe.q_scale.eq(self.q_scale.data),
                pipe.k_scale.eq(k_scale),
                entries[i].score.eq(pipe.o),
                entries[i].exponent.eq(v_scale[23:31]),
                entries[i].seen.eq(seen[i]),
            ]
            mantissas.append(Cat(v_scale[:23], v_scale[23:31].any()))
        en, slot = delay(m, en, self._TO_SCORE - 1), register(m, late)
        m.submodules.maxima = maxima = Maxima(s)
        m.d.comb += [
            maxima.en.eq(en),
            maxima.begins.eq(slot.begins),
            maxima.ends.eq(slot.ends),
            maxima.tag.eq(slot.tag),
            maxima.first.eq(delay(m, row.first, self._TO_SCORE - 1, reset_less=True)),
            maxima.entries.eq(entries),
        ]

        # They wait until the row's maxima are known, then become weights.
        wait = maxima.latency + s.slots_a_row - 1
        en = delay(m, en, wait + WeightPipe.LATENCY)
        slot = delay(m, slot, wait + WeightPipe.LATENCY, reset_less=True)
        p = Signal(data.ArrayLayout(24, pipes))
        w = Signal(data.ArrayLayout(WEIGHT_BITS, pipes))
        for i in range(pipes):
            m.submodules[f"weight{i}"] = weight = WeightPipe()
            m.d.comb += [
                weight.entry.eq(delay(m, entries[i], wait, reset_less=True)),
                weight.mantissa.eq(
                    delay(m, mantissas[i], wait + WeightPipe.MANTISSA_DELAY, reset_less=True)
                ),
                weight.max_p.eq(maxima.max_p),
                weight.max_w.eq(maxima.max_w),
                p[i].eq(weight.p),
                w[i].eq(weight.w),
            ]
        self._store(m, en, slot, w, maxima)
        with m.If(delay(m, en & slot.last, 1)):
            m.d.sync += self.weights.eq(self.weights + 1)

        m.submodules.denominators = denominators = Denominators(s)
        m.d.comb += [
            denominators.en.eq(en),
            denominators.begins.eq(slot.begins),
            denominators.ends.eq(slot.ends),
            denominators.tag.eq(slot.tag),
            denominators.p.eq(p),
        ]
        for name in ("rise_p", "first_row", "scale"):
            # One cycle after the maxima, for as long as a row lasts.
            of_row = delay(m, getattr(maxima, name), WeightPipe.LATENCY - 1, reset_less=True)
            m.d.comb += getattr(denominators, name).eq(of_row)
        tag = denominators.o_tag
        m.d.comb += [
            self.denominator.en.eq(denominators.done & tag.closes),
            self.denominator.index.eq(tag.index),
            self.denominator.lane.eq(tag.lane),
            self.denominator.l.eq(denominators.l),
            self.denominator.scale.eq(denominators.o_scale),
        ]
        return m

    def _issue(self, m: Module) -> data.View:
        """Items, their rows, and the slots of a row: a step of positions, or a part of one."""
        s = self._shape
        subs = s.positions // s.config.attention_pipes
        slot = Signal(
            data.StructLayout(
                {
                    "en": 1,
                    "tag": s.tag(),
                    "slot": s.slot,
                    "step": s.step,
                    "sub": range(max(subs, 2)),
                    "begins": 1,  # a row
                    "ends": 1,
                    "last": 1,  # of the item
                }
            )
        )
        started = Signal(range(2 * ITEMS))
        lane = Signal(s.lane)
        at = Signal(range(s.slots_a_row))
        running = Signal()
        item = Signal(s.item())
        apart = Signal(range(s.closing_period + 1))  # until the next tile may end

        buffered = (started - self.weighed_out)[: ITEMS.bit_length()]
        here = self.item.data
        ready = (started != self.dots) & (buffered < BUFFERED) & ~(here.closes & apart.any())
        with m.If(apart.any()):
            m.d.sync += apart.eq(apart - 1)
        with m.If(running):
            m.d.sync += at.eq(at + 1)
            with m.If(at == s.slots_a_row - 1):
                m.d.sync += [at.eq(0), lane.eq(lane + 1)]
                with m.If(lane == s.rows - 1):
                    m.d.sync += [running.eq(0), started.eq(started + 1), lane.eq(0)]
        with m.Elif(ready):
            m.d.sync += [running.eq(1), item.eq(here)]
            with m.If(here.closes):
                m.d.sync += apart.eq(s.closing_period)
        m.d.comb += [
            self.item.index.eq(started),
            self.row.index.eq(started),
            self.row.lane.eq(lane),
            slot.en.eq(running),
            slot.tag.index.eq(started),
            slot.tag.lane.eq(lane),
            slot.tag.tile.eq(item.tile),
            slot.tag.closes.eq(item.closes),
            slot.slot.eq(item.slot),
            slot.step.eq(at >> exact_log2(subs)),
            slot.sub.eq(at[: exact_log2(subs)]),
            slot.begins.eq(at == 0),
            slot.ends.eq(at == s.slots_a_row - 1),
            slot.last.eq(slot.ends & (lane == s.rows - 1)),
        ]
        # The dot products are read some cycles after they are asked for.
        with m.If(delay(m, slot.en & slot.last, self._TO_DOTS)):
            m.d.sync += self.read.eq(self.read + 1)
        return slot

    def _store(self, m: Module, en: Value, slot: data.View, w: Value, maxima: Maxima) -> None:
        """The memories of weights, one a row and position, and of rises."""
        s, pipes = self._shape, self._shape.config.attention_pipes
        buffer_bits = exact_log2(BUFFERED)
        to = Cat(slot.step, slot.tag.index[:buffer_bits])
        at = delay(m, Cat(self.weight.step, self.weight.index[:buffer_bits]), 2, reset_less=True)
        for x in range(s.positions):
            for a in range(s.rows):
                m.submodules[f"weights{a}_{x}"] = words = memory.Memory(
                    shape=unsigned(WEIGHT_BITS), depth=1 << len(to), init=[], attrs=DISTRIBUTED
                )
                write, read = words.write_port(), words.read_port(domain="comb")
                here = (slot.tag.lane == a) & (slot.sub == x // pipes)
                m.d.comb += [
                    write.en.eq(en & here),
                    write.addr.eq(to),
                    write.data.eq(w[x % pipes]),
                    read.addr.eq(at),
                    self.weight.data[a][x].eq(register(m, read.data)),
                ]
            at = register(m, at)

        m.submodules.rises = rises = memory.Memory(
            shape=RISE_BITS + 1, depth=ITEMS << len(self.rise.lane), init=[], attrs=DISTRIBUTED
        )
        write, read = rises.write_port(), rises.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(maxima.risen),
            write.addr.eq(Cat(maxima.o_tag.lane, maxima.o_tag.index)),
            write.data.eq(Cat(maxima.rise_w, maxima.first_row)),
            read.addr.eq(Cat(self.rise.lane, self.rise.index)),
            self.rise.data.eq(read.data),
        ]
