"""The sequencer: reads the program and hands its commands to the units, chunk by chunk."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect
from amaranth.utils import exact_log2

from .. import isa
from ..axi.report import error_layout
from ..axi.width import WidthConverter
from ..config import AcceleratorConfig
from ..interfaces import ReadChannelSignature, command_layout, op_view
from ..regs import COMMAND_UNIT, SEQUENCER_UNIT, Error
from .check import COMMAND_BITS, CommandCheck, checked_layout

PREFETCH = 4
"""Commands asked for ahead of the one that is handed out."""

INDEX_BITS = 16
"""Bits of a command's index in the program."""


class Sequencer(Component):
    """Runs one call: every chunk of a prompt, then what follows CHUNK once.

    A command is handed to its unit when the units in its wait mask are idle; units run side by
    side otherwise. CHUNK goes back to the first command while tokens remain, with the next chunk's
    position and length; END ends the call when every unit is idle. Commands are fetched
    `PREFETCH` ahead, and checked against the configuration's limits before their turn comes;
    those behind a jump are dropped.

    Latency: a call's first command is handed out after one DRAM access and the check; then at most
    one command every CommandCheck.LATENCY + 1 cycles. Back-pressure: a unit that is busy holds up
    the commands behind its own. Reset ends the call.

    Ports
    -----
    start : strobe; program, tokens, position, chunk : the call, held by the control port from at
        least two cycles before.
    busy, done : state of the call; `done` is a strobe.
    error : strobe with code, unit and address: a call that can't be, a command that is none or
        does not fit, a program that ends early.
    index : index of the command in turn.
    cmd_{unit}, busy_{unit} : command port of each isa.Unit, and its busy input.
    unit_index : index of the command that each unit took last.
    moved : a unit took a command in this cycle.
    left : weights or scales were fetched and not used.
    halt : an error elsewhere; nothing more is handed out.
    read : reader's channel of port 0.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        ports: dict = {
            "start": In(1),
            "halt": In(1),
            "program": In(32),
            "tokens": In(32),
            "position": In(32),
            "chunk": In(32),
            "busy": Out(1),
            "done": Out(1),
            "error": Out(error_layout()),
            "index": Out(INDEX_BITS),
            "unit_index": Out(data.ArrayLayout(unsigned(INDEX_BITS), len(isa.Unit))),
            "moved": Out(1),
            "left": In(1),
            "read": Out(ReadChannelSignature(config.bus_bits)),
        }
        for unit in isa.Unit:
            ports[f"cmd_{unit.name.lower()}"] = Out(stream.Signature(command_layout()))
            ports[f"busy_{unit.name.lower()}"] = In(1)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        beats = isa.COMMAND_BYTES // c.bus_bytes
        shift = exact_log2(isa.COMMAND_BYTES)

        m.submodules.gather = gather = WidthConverter(c.bus_bits, COMMAND_BITS)
        m.submodules.check = check = CommandCheck(c)
        m.submodules.queue = queue = SyncFIFOBuffered(width=checked_layout().size, depth=3)
        connect(m, gather.o, check.i)
        m.d.comb += [
            gather.i.payload.eq(self.read.data.payload),
            gather.i.valid.eq(self.read.data.valid),
            self.read.data.ready.eq(gather.i.ready),
            queue.w_data.eq(check.o.payload),
            queue.w_en.eq(check.o.valid),
            check.o.ready.eq(queue.w_rdy),
        ]

        # Fetch: `ahead` commands are asked for and not taken yet, the first `stale` of them belong
        # to a place that was jumped away from.
        fetching = Signal()
        fetch_address = Signal(32)
        ahead = Signal(range(PREFETCH + 1))
        stale = Signal(range(PREFETCH + 1))
        asked = Signal()
        taken = Signal()
        jump = Signal()
        request = self.read.req
        m.d.comb += [
            # What is offered stands until it is taken, wherever the program goes meanwhile.
            asked.eq(fetching & (ahead != PREFETCH) & (~request.valid | request.ready)),
            request.payload.beats.eq(beats),
            taken.eq(queue.r_en & queue.r_rdy),
        ]
        m.d.sync += ahead.eq(ahead + asked - taken)
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(asked):
            m.d.sync += [
                request.valid.eq(1),
                request.payload.address.eq(fetch_address),
                fetch_address.eq(fetch_address + isa.COMMAND_BYTES),
            ]
        with m.If(jump):
            m.d.sync += [fetch_address.eq(self.program), stale.eq(ahead + asked - taken)]
        with m.Elif(taken & (stale != 0)):
            m.d.sync += stale.eq(stale - 1)

        # The command at the head.
        head = data.View(checked_layout(), queue.r_data)
        words = Signal(data.ArrayLayout(unsigned(32), isa.COMMAND_WORDS))
        m.d.comb += words.eq(head.command)
        op = Signal(8)
        mask = Signal(8)
        m.d.comb += [op.eq(words[0][:8]), mask.eq(words[0][8:16])]
        # Its turn begins the cycle after it came to the head, with what was seen of it then.
        turn = Signal()
        for_unit = Signal(len(isa.Unit))
        is_chunk, is_end = Signal(), Signal()
        m.d.sync += [
            turn.eq(queue.r_rdy & (stale == 0) & ~queue.r_en),
            is_chunk.eq(op == isa.Op.CHUNK),
            is_end.eq(op == isa.Op.END),
            for_unit.eq(0),
        ]
        with m.Switch(op):
            for code, unit in isa.UNIT_OF.items():
                with m.Case(code):
                    m.d.sync += for_unit.eq(1 << unit)

        # As of the cycle before; a unit is busy from the cycle after it took a command.
        offered = Signal(len(isa.Unit))  # the command is for this unit and may go
        accepted = Signal()
        busies = Signal(len(isa.Unit))
        units = Cat(getattr(self, f"busy_{u.name.lower()}") for u in isa.Unit)
        m.d.sync += busies.eq(units | Mux(accepted, offered, 0))
        # No unit becomes busy but by a command's being taken, which ends the turn.
        free, fits = Signal(), Signal()
        m.d.sync += [free.eq((busies & mask) == 0), fits.eq(head.fits)]

        # The chunk: tokens done before it, its own, its position.
        done_tokens = Signal(32)
        chunk_tokens = Signal(16)
        position = Signal(32)
        pc = Signal(INDEX_BITS)
        after = Signal(32)
        remaining = Signal(32)
        more = Signal()
        m.d.sync += [
            after.eq(done_tokens + chunk_tokens),
            remaining.eq(self.tokens - after),
            more.eq(after < self.tokens),
        ]
        # The control port holds the call from some cycles before `start` on.
        end, bad = Signal(33), Signal()
        m.d.sync += [
            end.eq(self.position + self.tokens),
            bad.eq(
                (self.tokens == 0)
                | (self.chunk == 0)
                | (self.chunk > c.chunk)
                | (self.tokens > c.max_context)
                | (self.position > c.max_context)
                | (end > c.max_context)
            ),
        ]
        first_tokens, next_tokens = Signal(16), Signal(16)
        m.d.sync += [
            first_tokens.eq(Mux(self.tokens < self.chunk, self.tokens, self.chunk)),
            next_tokens.eq(Mux(remaining < self.chunk, remaining, self.chunk)),
        ]

        for unit in isa.Unit:
            port = getattr(self, f"cmd_{unit.name.lower()}")
            m.d.comb += [
                port.valid.eq(offered[unit]),
                port.payload.words.eq(words),
                port.payload.index.eq(pc),
                port.payload.position.eq(position),
                port.payload.tokens.eq(chunk_tokens),
                port.payload.done.eq(done_tokens),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += accepted.eq(1)
                m.d.sync += self.unit_index[unit].eq(pc)
        m.d.comb += self.index.eq(pc)
        m.d.sync += self.moved.eq(accepted)

        # What a call must have been through before its END.
        last_chunk = Signal()
        to_logits = Signal()
        command = self.cmd_linear.payload
        with m.If(accepted & offered[isa.Unit.LINEAR]):
            with m.If(op_view(command, isa.Op.LINEAR)["mode"] == isa.Mode.HEAD):
                m.d.sync += to_logits.eq(1)

        m.d.sync += self.error.valid.eq(0)

        def fail(code: Error, unit: int | Signal) -> None:
            """Report the command in turn."""
            m.d.sync += [
                self.error.valid.eq(1),
                self.error.code.eq(code),
                self.error.unit.eq(unit),
                self.error.address.eq(self.program + (pc << shift)),
            ]
            m.next = "STOP"

        with m.FSM():
            with m.State("IDLE"):
                # What was asked for behind an END comes late: it is dropped here.
                m.d.comb += queue.r_en.eq(stale != 0)
                with m.If(self.start & ~self.halt):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.busy.eq(1)
                m.d.comb += queue.r_en.eq(stale != 0)
                with m.If(bad):
                    m.d.sync += [
                        self.error.valid.eq(1),
                        self.error.code.eq(Error.BAD_CALL),
                        self.error.unit.eq(SEQUENCER_UNIT),
                        self.error.address.eq(end),
                    ]
                    m.next = "STOP"
                with m.Elif(stale == 0):
                    m.d.comb += jump.eq(1)
                    m.d.sync += [
                        fetching.eq(1),
                        pc.eq(0),
                        last_chunk.eq(0),
                        to_logits.eq(0),
                        done_tokens.eq(0),
                        position.eq(self.position),
                        chunk_tokens.eq(first_tokens),
                    ]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.busy.eq(1)
                m.d.comb += queue.r_en.eq((stale != 0) | accepted)
                m.d.comb += offered.eq(Mux(turn & free & fits & ~self.halt, for_unit, 0))
                with m.If(accepted):
                    m.d.sync += pc.eq(pc + 1)
                with m.If(turn):
                    with m.If(for_unit.any()):
                        with m.If(~fits):
                            unit = Signal(8)
                            for number in isa.Unit:
                                with m.If(for_unit[number]):
                                    m.d.comb += unit.eq(COMMAND_UNIT + number)
                            fail(Error.BAD_DIMENSION, unit)
                    with m.Elif(is_chunk):
                        with m.If(free):
                            m.d.comb += queue.r_en.eq(1)
                            m.d.sync += [pc.eq(pc + 1), last_chunk.eq(1)]
                            with m.If(more):
                                m.d.comb += jump.eq(1)
                                m.d.sync += [
                                    pc.eq(0),
                                    last_chunk.eq(0),
                                    done_tokens.eq(after),
                                    position.eq(position + chunk_tokens),
                                    chunk_tokens.eq(next_tokens),
                                ]
                    with m.Elif(is_end):
                        m.d.sync += fetching.eq(0)
                        with m.If(busies == 0):
                            m.d.comb += [queue.r_en.eq(1), jump.eq(1)]
                            with m.If(~last_chunk | ~to_logits | self.left):
                                fail(Error.EARLY_END, SEQUENCER_UNIT)
                            with m.Else():
                                m.d.comb += self.done.eq(1)
                                m.next = "IDLE"
                    with m.Else():
                        fail(Error.BAD_COMMAND, SEQUENCER_UNIT)
            with m.State("STOP"):
                # Only a reset leads out of an error.
                m.d.sync += fetching.eq(0)
        return m
