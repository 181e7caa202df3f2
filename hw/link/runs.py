"""Runs of bytes on the channels of a memory port, whose words are wider."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ..interfaces import ReadChannelSignature, WriteChannelSignature


def run_layout() -> data.StructLayout:
    """A run of bytes: offset in the memory, and how many, at least one."""
    return data.StructLayout({"address": unsigned(32), "count": unsigned(24)})


def _begin(m: Module, runs: Any, request: Any, lane: Signal, left: Signal, then: str) -> None:
    """The states IDLE and ASK: take a run, and ask for all words that it touches.

    lane, left: of the next byte, in its word; how many there are. `then` is the state that follows.
    """
    run = runs.payload
    shift = len(lane)
    with m.State("IDLE"):
        m.d.comb += runs.ready.eq(1)
        m.d.sync += [
            lane.eq(run.address),
            left.eq(run.count),
            request.payload.address.eq(run.address[shift:] << shift),
            request.payload.beats.eq((run.address[:shift] + run.count + (1 << shift) - 1) >> shift),
        ]
        with m.If(runs.valid):
            m.next = "ASK"
    with m.State("ASK"):
        m.d.comb += request.valid.eq(1)
        with m.If(request.ready):
            m.next = then


class RunReader(Component):
    """Bytes of one run after the other from a read channel.

    Latency: two cycles from a run to the channel, one from a word to its first byte. Throughput: a
    byte a cycle, and a cycle for each word. Back-pressure: words wait in the channel. Reset: no
    run. `busy` is high until a run's last byte is taken.
    """

    run: stream.Interface
    channel: Any
    o: stream.Interface
    busy: Signal

    def __init__(self, bus_bits: int) -> None:
        self._bus_bits = bus_bits
        super().__init__(
            {
                "run": In(stream.Signature(run_layout())),
                "channel": Out(ReadChannelSignature(bus_bits)),
                "o": Out(stream.Signature(8)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._bus_bits // 8
        lane = Signal(range(lanes))
        left = Signal(24)
        word = Signal(self._bus_bits)
        m.d.comb += self.o.payload.eq(word.word_select(lane, 8))
        with m.FSM() as fsm:
            _begin(m, self.run, self.channel.req, lane, left, "WORD")
            with m.State("WORD"):
                m.d.comb += self.channel.data.ready.eq(1)
                m.d.sync += word.eq(self.channel.data.payload)
                with m.If(self.channel.data.valid):
                    m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [lane.eq(lane + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "IDLE"
                    with m.Elif(lane == lanes - 1):
                        m.next = "WORD"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m


class RunWriter(Component):
    """Bytes of one run after the other to a write channel; strobes leave the neighbours alone.

    Latency: two cycles from a run to the channel, one from a word's last byte to the word.
    Throughput: a byte a cycle, and a cycle for each word. Back-pressure: `i.ready` is low while a
    word waits for the channel. Reset: no run. `busy` is high until the memory has acknowledged a
    run; only then the next one is taken.
    """

    run: stream.Interface
    i: stream.Interface
    channel: Any
    busy: Signal

    def __init__(self, bus_bits: int) -> None:
        self._bus_bits = bus_bits
        super().__init__(
            {
                "run": In(stream.Signature(run_layout())),
                "i": In(stream.Signature(8)),
                "channel": Out(WriteChannelSignature(bus_bits)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._bus_bits // 8
        lane = Signal(range(lanes))
        left = Signal(24)
        word = self.channel.data.payload
        with m.FSM() as fsm:
            _begin(m, self.run, self.channel.req, lane, left, "BYTES")
            with m.State("BYTES"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        word.data.word_select(lane, 8).eq(self.i.payload),
                        word.strobe.bit_select(lane, 1).eq(1),
                        lane.eq(lane + 1),
                        left.eq(left - 1),
                    ]
                    with m.If((left == 1) | (lane == lanes - 1)):
                        m.next = "WORD"
            with m.State("WORD"):
                m.d.comb += self.channel.data.valid.eq(1)
                with m.If(self.channel.data.ready):
                    m.d.sync += word.strobe.eq(0)
                    with m.If(left == 0):
                        m.next = "ANSWER"
                    with m.Else():
                        m.next = "BYTES"
            with m.State("ANSWER"):
                with m.If(self.channel.idle):
                    m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
