"""The weight fetch: descriptors to the DMA, beats of all ports to index words."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from numpy.typing import NDArray

from ..config import AcceleratorConfig
from ..interfaces import ReadChannelSignature, command_layout, op_view
from ..isa import Op
from ..skid import Skid
from .unpack import Unpack

DESCRIPTOR_BEATS = 1 << 22
"""Beats of one descriptor at most (its field has 24 bits, an address 32)."""


def join_ports(parts: list[NDArray[np.uint8]], config: AcceleratorConfig) -> NDArray[np.uint8]:
    """The joined byte stream of the ports' regions: reference of what the unpacker sees."""
    return np.stack([p.reshape(-1, config.bus_bytes) for p in parts], axis=1).reshape(-1)


class FetchUnit(Component):
    """Streams the weights of a FETCH command, as index words.

    cmd, busy: as every unit; busy falls after the last word was taken from `o` and the last beat
    from the ports. port{p}: port p reads `beats` bus words from address + p * port_stride; a beat
    of all ports side by side (port 0 lowest) goes on when every port has one. o: exactly `words`
    words; what is left of the beats is dropped.

    Throughput: a joined beat or a word a cycle, whichever limits; Unpack.LATENCY + 2 cycles from
    the beat that completes a word. Stalls with `o`. Reset: idle; beats that were asked for before
    must not arrive after it.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        ports = {f"port{p}": Out(ReadChannelSignature(c.bus_bits)) for p in range(c.ports)}
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "o": Out(stream.Signature(unsigned(c.word_bits))),
                **ports,
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        m.submodules.unpack = unpack = Unpack(c)
        args = op_view(self.cmd.payload, Op.FETCH)
        ports = [getattr(self, f"port{p}") for p in range(c.ports)]

        beats_left, words_left = Signal(32), Signal(32)
        rest = Signal(init=1)  # all words are out: further beats are padding
        m.d.comb += self.cmd.ready.eq(~self.busy)
        with m.If(self.cmd.valid & self.cmd.ready):
            m.d.sync += [
                self.busy.eq(1),
                beats_left.eq(args["beats"]),
                words_left.eq(args["words"]),
                rest.eq(args["words"] == 0),
            ]

        # Descriptors: every port works its region off on its own.
        for p, port in enumerate(ports):
            stride, left = Signal(32, name=f"stride{p}"), Signal(32, name=f"asked_left{p}")
            address, based = Signal(32, name=f"address{p}"), Signal(name=f"based{p}")
            steps = Signal(range(c.ports + 1), name=f"steps{p}")
            last = Signal(name=f"last{p}")
            m.d.comb += [
                last.eq(left <= DESCRIPTOR_BEATS),
                based.eq(steps == 0),
                port.req.valid.eq(based & (left != 0)),
                port.req.payload.address.eq(address),
                port.req.payload.beats.eq(Mux(last, left, DESCRIPTOR_BEATS)),
            ]
            with m.If(~based):
                m.d.sync += [address.eq(address + stride), steps.eq(steps - 1)]
            with m.If(port.req.valid & port.req.ready):
                m.d.sync += [
                    address.eq(address + DESCRIPTOR_BEATS * c.bus_bytes),
                    left.eq(Mux(last, 0, left - DESCRIPTOR_BEATS)),
                ]
            with m.If(self.cmd.valid & self.cmd.ready):
                m.d.sync += [
                    address.eq(args["address"]),
                    stride.eq(args["port_stride"]),
                    steps.eq(p),
                    left.eq(args["beats"]),
                ]

        # Join.
        joined = []
        for p, port in enumerate(ports):
            m.submodules[f"data{p}"] = data = Skid(c.bus_bits)
            connect(m, flipped(port.data), data.i)
            joined.append(data.o)
        take, all_valid = Signal(), Signal()
        m.d.comb += [
            all_valid.eq(Cat(port.valid for port in joined).all()),
            unpack.i.valid.eq(all_valid & ~rest),
            unpack.i.payload.eq(Cat(port.payload for port in joined)),
            take.eq(all_valid & (unpack.i.ready | rest)),
            *(port.ready.eq(take) for port in joined),
        ]
        with m.If(take):
            m.d.sync += beats_left.eq(beats_left - 1)

        m.d.comb += [
            self.o.valid.eq(unpack.o.valid & ~rest),
            self.o.payload.eq(unpack.o.payload),
            unpack.o.ready.eq(self.o.ready & ~rest),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [words_left.eq(words_left - 1), rest.eq(words_left == 1)]
        with m.If(self.busy & rest):
            m.d.comb += unpack.clear.eq(1)
            with m.If(beats_left == 0):
                m.d.sync += self.busy.eq(0)
        return m
