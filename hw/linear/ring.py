"""The weight ring: a FIFO of index words whose head can be read again."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig

LATENCY = 2
"""Cycles from `step` to `data`."""

_RAM_STYLE = {"uram": "ultra", "bram": "block", "lutram": "distributed"}


class WeightRing(Component):
    """Words wait here in stream order until the sweep of the last token group has used them.

    i: words, one a cycle, refused only when the memory is full. valid: a word lies at the read
    pointer; step (only while valid): read it and move on, `data` holds it LATENCY cycles later for
    one cycle. With `free` the step also gives the word's place back: all words before it must have
    been given back. rewind (not with `step`): the read pointer goes back to the first word not
    given back. Filling goes on all the while. held: there are words whose place was
    not given back. Reset empties the ring.

    A simple dual-port memory with one registered read: URAM288, block RAM or LUTRAM.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(config.word_bits))),
                "valid": Out(1),
                "held": Out(1),
                "step": In(1),
                "free": In(1),
                "rewind": In(1),
                "data": Out(config.word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        depth = c.weight_depth
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(c.word_bits),
            depth=depth,
            init=[],
            attrs={"ram_style": _RAM_STYLE[c.weight_memory]},
        )
        write = memory.write_port()
        read = memory.read_port()

        head = Signal(range(depth))  # where the next word is written
        base = Signal(range(depth))  # first word not given back
        pointer = Signal(range(depth))  # next word to read
        held = Signal(range(depth + 1))  # words not given back
        ahead = Signal(range(depth + 1))  # words from the pointer on
        some = Signal()  # ahead != 0

        def following(at: Signal) -> Value:
            return Mux(at == depth - 1, 0, at + 1)

        arrival = Signal()
        full = Signal()  # held == depth, in a register: the path to the DMA begins here
        m.d.comb += [
            self.i.ready.eq(~full),
            arrival.eq(self.i.valid & self.i.ready),
            write.addr.eq(head),
            write.data.eq(self.i.payload),
            write.en.eq(arrival),
            self.valid.eq(some),
            self.held.eq(held != 0),
            read.addr.eq(pointer),
            read.en.eq(self.step),
        ]
        with m.If(arrival):
            m.d.sync += head.eq(following(head))
        freed = Signal()
        m.d.comb += freed.eq(self.step & self.free)
        m.d.sync += held.eq(held + arrival - freed)
        m.d.sync += full.eq(~freed & (full | (arrival & (held == depth - 1))))
        with m.If(freed):
            m.d.sync += base.eq(following(base))
        with m.If(self.rewind):
            m.d.sync += [pointer.eq(base), ahead.eq(held + arrival), some.eq((held != 0) | arrival)]
        with m.Elif(self.step):
            m.d.sync += [
                pointer.eq(following(pointer)),
                ahead.eq(ahead + arrival - 1),
                some.eq((ahead != 1) | arrival),
            ]
        with m.Else():
            m.d.sync += [ahead.eq(ahead + arrival), some.eq(some | arrival)]

        out = Signal(c.word_bits, reset_less=True)
        m.d.sync += out.eq(read.data)
        m.d.comb += self.data.eq(out)
        return m
