"""Executes the link's requests, in order and each once, and answers all of them."""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import Component, In, Out

from ..axi.report import error_layout
from .frame_receiver import MOST_OCTETS
from .protocol import (
    ANSWER,
    BUFFER_BYTES,
    BUFFER_FRAMES,
    DATA_BYTES,
    HELLO_DATA,
    REPLY,
    REQUEST,
    VERSION,
    Command,
    Reply,
)
from .register_master import access_layout, outcome_layout
from .runs import run_layout

IDENTITY_REGISTERS = 3
"""Registers that a reply to HELLO ends with: MAGIC, VERSION, CONFIG_HASH, from address 0 on."""


def request_layout() -> data.StructLayout:
    """The header of a request (protocol.REQUEST)."""
    return data.StructLayout(
        {
            "command": unsigned(8),
            "sequence": unsigned(8),
            "session": unsigned(16),
            "address": unsigned(32),
            "count": unsigned(32),
        }
    )


class Executor(Component):
    """The commands of protocol.py, behind sequence numbers.

    Within a session the request after the last one is executed; the last one again is answered
    again, from the reply buffer, and not executed; any other is answered OUT_OF_ORDER. What is
    refused is taken whole and has no effect.

    Throughput: one request at a time; a byte of data in two cycles or as the memory gives them.
    Back-pressure: requests wait until the reply before is on its way. Reset: no session.

    Ports
    -----
    i, length : from FrameReceiver. put ... busy : to ReplyBuffer.
    access, outcome : to RegisterMaster. read ... idle : to MemoryPort.
    irq : the accelerator's interrupt.
    """

    def __init__(self, clock_hz: int, base: int, size: int) -> None:
        self._tick = clock_hz // 1000
        identity = (VERSION, DATA_BYTES, BUFFER_BYTES, BUFFER_FRAMES, base, size, clock_hz)
        whole = HELLO_DATA.pack(*identity, *[0] * IDENTITY_REGISTERS)
        self._identity = whole[: -4 * IDENTITY_REGISTERS]
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "length": In(range(MOST_OCTETS + 1)),
                "put": Out(1),
                "octet": Out(8),
                "clear": Out(1),
                "send": Out(1),
                "header": Out(8 * ANSWER.size),
                "whole": Out(1),
                "busy": In(1),
                "access": Out(stream.Signature(access_layout())),
                "outcome": In(stream.Signature(outcome_layout())),
                "read": Out(stream.Signature(run_layout())),
                "read_data": In(stream.Signature(8)),
                "write": Out(stream.Signature(run_layout())),
                "write_data": Out(stream.Signature(8)),
                "error": In(error_layout()),
                "flush": Out(1),
                "idle": In(1),
                "irq": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._request = request = Signal(request_layout())
        self._left = left = Signal.like(self.length)  # octets of the request that are not taken
        self._count = Signal(24)  # registers or bytes that are not done
        self._word = Signal(32)  # to be put, or read from a register
        self._part = part = Signal(2)
        self._more = Signal()  # registers are left when the word is put
        # The reply to the last request, and what is said of one that was not executed.
        self._status, self._detail = Signal(8), Signal(8)
        self._aside, self._remark = Signal(), Signal(Reply)
        session, last = Signal(16), Signal(8)

        m.d.comb += [
            self.octet.eq(self._word[:8]),
            self.whole.eq(~self._aside),
            self.header.eq(
                Cat(
                    request.command[:7],
                    C(REPLY >> 7, 1),
                    request.sequence,
                    request.session,
                    Mux(self._aside, self._remark, self._status),
                    Mux(self._aside, last, self._detail),
                )
            ),
        ]
        got = Signal(range(REQUEST.size + 1))
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        request.eq(Cat(request.as_value()[8:], self.i.payload)),
                        got.eq(got + 1),
                    ]
                    with m.If(got == REQUEST.size - 1):
                        m.d.sync += [got.eq(0), left.eq(self.length - REQUEST.size)]
                        m.next = "JUDGE"
            self._elaborate_order(m, session, last)
            self._elaborate_registers(m)
            self._elaborate_memory(m)
            with m.State("PUT"):  # a word, as octets of the reply
                m.d.comb += self.put.eq(1)
                m.d.sync += [self._word.eq(self._word >> 8), part.eq(part + 1)]
                with m.If(part == 3):
                    with m.If(self._more):
                        m.next = "READ_REGISTER"
                    with m.Else():
                        m.next = "ANSWER"
            with m.State("ANSWER"):
                # What is left of a request that was not executed, or not to its end.
                m.d.comb += self.i.ready.eq(left != 0)
                with m.If(left != 0):
                    with m.If(self.i.valid):
                        m.d.sync += left.eq(left - 1)
                with m.Else():
                    m.d.comb += self.send.eq(1)
                    m.next = "SENDING"
            with m.State("SENDING"):
                # The buffer is not touched before it is sent.
                with m.If(~self.busy):
                    m.next = "HEADER"
        return m

    def _elaborate_order(self, m: Module, session: Signal, last: Signal) -> None:
        """Which request is executed."""
        request, count = self._request, self._request.count
        known, same, following = Signal(), Signal(), Signal()
        fits = Signal()  # the command is one, with this count and this length
        bare = self._left == 0
        small = (count != 0) & ~count[24:].any()
        with m.State("JUDGE"):
            m.d.sync += [
                known.eq((request.session == session) & (session != 0)),
                same.eq(request.sequence == last),
                following.eq(request.sequence == (last + 1)[:8]),
                fits.eq(0),
            ]
            with m.Switch(request.command):
                for command, rule in {
                    Command.HELLO: bare & (request.session != 0),
                    Command.SYNC: bare,
                    Command.READ_REGISTERS: bare & small & (count <= DATA_BYTES // 4),
                    Command.WRITE_REGISTERS: (count << 3 == self._left) & small,
                    Command.READ_MEMORY: bare & small & (count <= DATA_BYTES),
                    Command.WRITE_MEMORY: (count == self._left) & small,
                    Command.FILL_MEMORY: bare & small,
                    Command.CHECKSUM_MEMORY: bare & small,
                    Command.WAIT: bare & ~count[16:].any(),
                }.items():
                    with m.Case(command):
                        m.d.sync += fits.eq(rule)
            m.next = "ORDER"
        with m.State("ORDER"):
            hello = fits & (request.command == Command.HELLO)
            sync = fits & (request.command == Command.SYNC) & known
            m.d.sync += [self._aside.eq(1), self._count.eq(count), self._part.eq(0)]
            with m.If(~hello & ~known):
                m.d.sync += self._remark.eq(Reply.NO_SESSION)
                m.next = "ANSWER"
            with m.Elif(~hello & ~sync & same):
                m.d.sync += self._aside.eq(0)
                m.next = "ANSWER"
            with m.Elif(~hello & ~sync & ~following):
                m.d.sync += self._remark.eq(Reply.OUT_OF_ORDER)
                m.next = "ANSWER"
            with m.Else():
                m.d.comb += self.clear.eq(1)
                m.d.sync += [
                    self._aside.eq(0),
                    self._status.eq(Mux(fits, Reply.OK, Reply.REFUSED)),
                    self._detail.eq(0),
                    session.eq(request.session),
                    last.eq(request.sequence),
                ]
                m.next = "ANSWER"
                with m.If(fits):
                    with m.Switch(request.command):
                        for command, state in {
                            Command.HELLO: "HELLO",
                            Command.READ_REGISTERS: "READ_REGISTER",
                            Command.WRITE_REGISTERS: "PAIR",
                            Command.READ_MEMORY: "READ_RUN",
                            Command.CHECKSUM_MEMORY: "READ_RUN",
                            Command.WRITE_MEMORY: "WRITE_RUN",
                            Command.FILL_MEMORY: "WRITE_RUN",
                            Command.WAIT: "WAIT",
                        }.items():
                            with m.Case(command):
                                m.next = state
        self._elaborate_hello(m)

    def _elaborate_hello(self, m: Module) -> None:
        at = Signal(range(len(self._identity)))
        with m.State("HELLO"):
            m.d.comb += self.put.eq(1)
            with m.Switch(at):
                for n, octet in enumerate(self._identity):
                    with m.Case(n):
                        m.d.comb += self.octet.eq(octet)
            m.d.sync += at.eq(at + 1)
            with m.If(at == len(self._identity) - 1):
                m.d.sync += [
                    at.eq(0),
                    self._request.address.eq(0),
                    self._count.eq(IDENTITY_REGISTERS),
                ]
                m.next = "READ_REGISTER"

    def _elaborate_registers(self, m: Module) -> None:
        """READ_REGISTERS, WRITE_REGISTERS, WAIT."""
        request, count, word = self._request, self._count, self._word
        pair = Signal(64)
        got = Signal(3)
        reading = Signal()
        m.d.comb += [
            self.access.payload.write.eq(~reading),
            self.access.payload.address.eq(Mux(reading, request.address, pair[:32])),
            self.access.payload.word.eq(pair[32:]),
        ]
        with m.State("READ_REGISTER"):
            m.d.sync += reading.eq(1)
            m.next = "ACCESS"
        with m.State("PAIR"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += reading.eq(0)
            with m.If(self.i.valid):
                m.d.sync += [
                    pair.eq(Cat(pair[8:], self.i.payload)),
                    got.eq(got + 1),
                    self._left.eq(self._left - 1),
                ]
                with m.If(got == 7):
                    m.next = "ACCESS"
        with m.State("ACCESS"):
            m.d.comb += self.access.valid.eq(1)
            with m.If(self.access.ready):
                m.next = "OUTCOME"
        with m.State("OUTCOME"):
            m.d.comb += self.outcome.ready.eq(1)
            with m.If(self.outcome.valid):
                m.d.sync += [count.eq(count - 1), self._more.eq(reading & (count != 1))]
                with m.If(self.outcome.payload.response[1]):  # SLVERR, DECERR
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += [
                        self._status.eq(Reply.REGISTER_ERROR),
                        self._detail.eq(self.outcome.payload.response),
                        word.eq(self.access.payload.address),
                        self._more.eq(0),
                    ]
                    m.next = "PUT"
                with m.Elif(reading):
                    m.d.sync += [
                        word.eq(self.outcome.payload.word),
                        request.address.eq(request.address + 4),
                    ]
                    m.next = "PUT"
                with m.Elif(count == 1):
                    m.next = "ANSWER"
                with m.Else():
                    m.next = "PAIR"

        cycles = Signal(range(self._tick))
        with m.State("WAIT"):
            m.d.sync += cycles.eq(cycles + 1)
            with m.If(cycles == self._tick - 1):
                m.d.sync += [cycles.eq(0), count.eq(count - 1)]
            with m.If(self.irq | (count == 0)):
                m.d.sync += [self._detail.eq(self.irq), cycles.eq(0)]
                m.next = "ANSWER"

    def _elaborate_memory(self, m: Module) -> None:
        """READ_MEMORY, CHECKSUM_MEMORY, WRITE_MEMORY, FILL_MEMORY."""
        request, count, word = self._request, self._count, self._word
        m.submodules.checksum = checksum = catalog.CRC32_ISO_HDLC(data_width=8).create()
        summing = request.command == Command.CHECKSUM_MEMORY
        filling = request.command == Command.FILL_MEMORY
        for run in (self.read.payload, self.write.payload):
            m.d.comb += [run.address.eq(request.address), run.count.eq(request.count)]
        m.d.comb += checksum.data.eq(self.read_data.payload)

        with m.State("READ_RUN"):
            m.d.comb += [self.read.valid.eq(1), checksum.start.eq(1)]
            with m.If(self.read.ready):
                m.next = "READ_DATA"
        with m.State("READ_DATA"):
            m.d.comb += self.read_data.ready.eq(1)
            with m.If(self.read_data.valid):
                m.d.comb += [
                    self.octet.eq(self.read_data.payload),
                    self.put.eq(~summing),
                    checksum.valid.eq(1),
                ]
                m.d.sync += count.eq(count - 1)
                with m.If(count == 1):
                    m.next = "READ_END"
            with m.Elif(self.error.valid):
                m.next = "FAILED"
        with m.State("READ_END"):
            m.d.sync += [word.eq(checksum.crc), self._more.eq(0)]
            with m.If(summing):
                m.next = "PUT"
            with m.Else():
                m.next = "ANSWER"

        with m.State("WRITE_RUN"):
            m.d.comb += self.write.valid.eq(1)
            with m.If(self.write.ready):
                m.next = "WRITE_DATA"
        with m.State("WRITE_DATA"):
            with m.If(filling):
                m.d.comb += self.write_data.valid.eq(1)
            with m.Else():
                m.d.comb += [
                    self.write_data.valid.eq(self.i.valid),
                    self.write_data.payload.eq(self.i.payload),
                    self.i.ready.eq(self.write_data.ready),
                ]
            with m.If(self.write_data.valid & self.write_data.ready):
                m.d.sync += count.eq(count - 1)
                with m.If(~filling):
                    m.d.sync += self._left.eq(self._left - 1)
                with m.If(count == 1):
                    m.next = "WRITE_END"
        with m.State("WRITE_END"):
            with m.If(self.error.valid):
                m.next = "FAILED"
            with m.Elif(self.idle):
                m.next = "ANSWER"

        with m.State("FAILED"):
            m.d.comb += [self.flush.eq(1), self.clear.eq(1)]
            m.d.sync += [
                self._status.eq(Reply.MEMORY_ERROR),
                self._detail.eq(self.error.code),
                word.eq(self.error.address),
                self._more.eq(0),
            ]
            m.next = "SETTLE"
        with m.State("SETTLE"):
            with m.If(self.idle):
                m.next = "PUT"
