"""KV blocks of 32 positions on chip, loaded newest to oldest ahead of their use."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from ..config import KV_BLOCK
from ..fp import delay, register
from ..interfaces import ReadChannelSignature
from ..record_places import record_places
from .records import RecordUnpacker, widened
from .shape import READ_LATENCY, SLOTS, AttentionShape


class KvBuffer(Component):
    """Loads what one command needs: for each KV head, for each pass of queries, the blocks from
    the one of the pass's newest position down to block 0.

    Blocks take slots 0, 1, .. in turn. `valid` has a bit a slot: high from when all of a block is
    there until `release`, which frees the oldest slot. `start` (one cycle, with `job` stable from
    then on) begins a command; all of the last one must be released by then.

    `code` gives word `beat` of K (or, with `v`, V) of position `j` of the block in `slot`, and
    `scale` both scales of a position, each READ_LATENCY cycles after the address, one a cycle.

    One descriptor a port and block, of the records of that block that exist on that port; all
    ports fill their banks at once. Memory traffic is exactly these records. Reset: empty.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        c = shape.config
        at = {"slot": Out(range(SLOTS)), "j": Out(range(KV_BLOCK))}
        super().__init__(
            {
                "job": In(shape.job()),
                "start": In(1),
                **{f"kv{p}": Out(ReadChannelSignature(c.bus_bits)) for p in range(c.ports)},
                "valid": Out(SLOTS),
                "release": In(1),
                "code": In(
                    Signature(
                        at | {"v": Out(1), "beat": Out(shape.beat), "data": In(shape.word_bits)}
                    )
                ),
                "scale": In(Signature(at | {"k": In(32), "v": In(32)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c = self._shape, self._shape.config
        ports = c.ports
        port_bits = ports.bit_length() - 1
        per_port = KV_BLOCK // ports
        job = self.job

        # Which slots are asked for, and which ports have filled them.
        asked = Signal(SLOTS)
        filled = [Signal(SLOTS, name=f"filled{p}") for p in range(ports)]
        size = Signal(data.ArrayLayout(range(KV_BLOCK + 1), SLOTS))
        oldest = Signal(range(SLOTS))
        every = asked
        for bits in filled:
            every = every & bits
        m.d.comb += self.valid.eq(every)

        def count_of(block_size: Signal, port: int) -> Signal:
            """Positions of a block of `block_size` on a port."""
            return (block_size + (ports - 1 - port)) >> port_bits

        # Requests.
        kv_head = Signal.like(job.kv_heads)
        token = Signal.like(job.tokens)
        end = Signal(len(job.tokens) + 1)
        head_base = Signal(32)
        newest = Signal(s.position_bits)
        block = Signal(s.position_bits - 5)
        positions = Signal(range(KV_BLOCK + 1))
        slot = Signal(range(SLOTS))
        offset = Signal(32)
        places = record_places(m, c, job.format, job.head_beats, s.dims)
        record_beats = Signal(16)
        m.d.sync += record_beats.eq(job.record_bytes >> (c.bus_bytes.bit_length() - 1))
        beats = [Signal(24, name=f"beats{p}") for p in range(ports)]
        channels = [getattr(self, f"kv{p}") for p in range(ports)]
        for channel in channels:
            with m.If(channel.req.ready):
                m.d.sync += channel.req.valid.eq(0)

        with m.FSM(name="loader"):
            with m.State("IDLE"):
                m.d.sync += [kv_head.eq(0), token.eq(0), head_base.eq(job.address)]
                with m.If(self.start):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.sync += end.eq(token + job.pass_tokens)
                m.next = "LIMIT"
            with m.State("LIMIT"):
                with m.If(end > job.tokens):
                    m.d.sync += end.eq(job.tokens)
                m.next = "NEWEST"
            with m.State("NEWEST"):
                m.d.sync += newest.eq(job.position + end - 1)
                m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += [block.eq(newest[5:]), positions.eq(newest[:5] + 1)]
                m.next = "ROOM"
            with m.State("ROOM"):
                with m.If(~asked.bit_select(slot, 1)):
                    m.d.sync += offset.eq((block * job.record_bytes) << (5 - port_bits))
                    for p in range(ports):
                        m.d.sync += beats[p].eq(count_of(positions, p) * record_beats)
                    m.next = "OFFSET"
            with m.State("OFFSET"):
                m.d.sync += offset.eq(offset + head_base)
                m.next = "ASK"
            with m.State("ASK"):
                stride = job.port_stride
                for p, channel in enumerate(channels):
                    far = [0, stride, stride << 1, stride + (stride << 1)][p]
                    m.d.sync += [
                        channel.req.payload.address.eq(offset + far),
                        channel.req.payload.beats.eq(beats[p]),
                        channel.req.valid.eq(beats[p] != 0),
                    ]
                m.d.sync += [
                    size[slot].eq(positions),
                    asked.bit_select(slot, 1).eq(1),
                    slot.eq(slot + 1),
                ]
                m.next = "ASKED"
            with m.State("ASKED"):
                with m.If(~Cat(channel.req.valid for channel in channels).any()):
                    m.d.sync += [block.eq(block - 1), positions.eq(KV_BLOCK)]
                    m.next = "ROOM"
                    with m.If(block == 0):
                        m.d.sync += token.eq(end)
                        m.next = "PASS"
                        with m.If(end == job.tokens):
                            m.d.sync += [
                                token.eq(0),
                                kv_head.eq(kv_head + 1),
                                head_base.eq(head_base + job.head_stride),
                            ]
                            with m.If(kv_head == job.kv_heads - 1):
                                m.next = "IDLE"

        # Banks, one a port, each filled by its own unpacker.
        code_slot = register(m, self.code.slot)
        code_v, code_beat = register(m, self.code.v), register(m, self.code.beat)
        code_j = register(m, self.code.j)
        scale_slot, scale_j = register(m, self.scale.slot), register(m, self.scale.j)
        codes, scales = [], []
        for p, channel in enumerate(channels):
            m.submodules[f"unpack{p}"] = unpack = RecordUnpacker(s)
            turn = Signal(range(SLOTS), name=f"turn{p}")
            connect(m, flipped(channel.data), unpack.i)
            m.d.comb += [
                unpack.go.eq((asked & ~filled[p]).bit_select(turn, 1)),
                unpack.count.eq(count_of(size[turn], p)),
                unpack.format.eq(job.format),
                unpack.head_beats.eq(job.head_beats),
                unpack.places.eq(places),
                unpack.record_beats.eq(record_beats),
            ]
            with m.If(unpack.done):
                m.d.sync += [filled[p].bit_select(turn, 1).eq(1), turn.eq(turn + 1)]

            beat_bits = len(unpack.code.beat)
            at_bits = len(unpack.code.position)
            m.submodules[f"codes{p}"] = bank = memory.Memory(
                shape=s.word_bits, depth=SLOTS * per_port * 2 << beat_bits, init=[]
            )
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.en.eq(unpack.code.en),
                write.addr.eq(
                    Cat(unpack.code.beat, unpack.code.v, unpack.code.position[:at_bits], turn)
                ),
                write.data.eq(unpack.code.data),
                read.addr.eq(Cat(code_beat[:beat_bits], code_v, code_j[port_bits:], code_slot)),
                read.en.eq(1),
            ]
            codes.append(read.data)

            m.submodules[f"scales{p}"] = bank = memory.Memory(
                shape=64, depth=SLOTS * per_port, init=[]
            )
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.en.eq(unpack.scale.en),
                write.addr.eq(Cat(unpack.scale.position[:at_bits], turn)),
                write.data.eq(Cat(unpack.scale.k, unpack.scale.v)),
                read.addr.eq(Cat(scale_j[port_bits:], scale_slot)),
                read.en.eq(1),
            ]
            scales.append(read.data)

        # The bank that a position lies in.
        code_port = register(m, code_j[: max(port_bits, 1)])
        scale_port = register(m, scale_j[: max(port_bits, 1)])
        packed = Signal(s.word_bits)
        code = Signal(s.word_bits, reset_less=True)
        m.d.sync += code.eq(widened(m, job.format, packed, s.dims))
        scale = Signal(64, reset_less=True)
        for p in range(ports):
            with m.If((code_port == p) | (ports == 1)):
                m.d.comb += packed.eq(codes[p])
            with m.If((scale_port == p) | (ports == 1)):
                m.d.sync += scale.eq(scales[p])
        m.d.comb += [
            self.code.data.eq(delay(m, code, READ_LATENCY - 3, reset_less=True)),
            Cat(self.scale.k, self.scale.v).eq(scale),
        ]

        with m.If(self.release):
            m.d.sync += [asked.bit_select(oldest, 1).eq(0), oldest.eq(oldest + 1)]
            for bits in filled:
                m.d.sync += bits.bit_select(oldest, 1).eq(0)
        return m
