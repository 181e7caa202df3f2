"""KV blocks of 32 positions on chip, loaded newest to oldest ahead of their use."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.utils import exact_log2

from ..config import KV_BLOCK
from ..fp import delay, register
from ..interfaces import ReadChannelSignature
from ..record_places import record_places
from .records import RecordUnpacker
from .shape import BLOCK, DISTRIBUTED, AttentionShape, skewed


class KvBuffer(Component):
    """Loads what one command needs: for each KV head, for each pass of queries, the blocks from
    the one of the pass's newest position down to block 0.

    Blocks take slots 0, 1, .. in turn. `valid` has a bit a slot: high from when all of a block is
    there until `release`, which frees the oldest slot. `start` (one cycle, with `job` stable from
    then on) begins a command; all of the last one must be released by then. A KV head is loaded
    once `heads_ready` exceeds its number.

    A read gives the words of all ports at once, positions ports * step .. of the block in `slot`:
    `k` READ_LATENCY + i cycles after the address for lane i of word `beat` of K (a cycle earlier
    where shape.is_late), `v` READ_LATENCY + p cycles after it for port p's word of V, as the
    multipliers' chains take them; `k_scale` and `v_scale` one cycle after it. One address a cycle
    each.

    One descriptor a port and block, of the records of that block that exist on that port; all
    ports fill their banks at once. Memory traffic is exactly these records. Reset: empty.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        c = shape.config
        at = {"slot": Out(shape.slot), "step": Out(shape.step)}
        words = data.ArrayLayout(data.ArrayLayout(signed(16), shape.dims), shape.positions)
        code = Signature(at | {"beat": Out(shape.beat), "data": In(words)})
        scale = Signature(at | {"data": In(data.ArrayLayout(32, shape.positions))})
        super().__init__(
            {
                "job": In(shape.job()),
                "start": In(1),
                "heads_ready": In(range(c.max_heads + 1)),
                **{f"kv{p}": Out(ReadChannelSignature(c.bus_bits)) for p in range(c.ports)},
                "valid": Out(shape.slots),
                "release": In(1),
                "k": In(code),
                "v": In(code),
                "k_scale": In(scale),
                "v_scale": In(scale),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c, job = self._shape, self._shape.config, self.job
        port_bits = exact_log2(c.ports)

        # Which slots are asked for, and which ports have filled them.
        asked = Signal(s.slots)
        filled = [Signal(s.slots, name=f"filled{p}") for p in range(c.ports)]
        size = Signal(data.ArrayLayout(range(KV_BLOCK + 1), s.slots))
        oldest = Signal(s.slot)
        every = asked
        for bits in filled:
            every = every & bits
        m.d.sync += self.valid.eq(every)
        with m.If(self.release):
            m.d.sync += [
                asked.bit_select(oldest, 1).eq(0),
                self.valid.bit_select(oldest, 1).eq(0),
                oldest.eq(oldest + 1),
            ]
            for bits in filled:
                m.d.sync += bits.bit_select(oldest, 1).eq(0)

        places = record_places(m, c, job.format, job.head_beats, s.dims)
        record_beats = Signal(16)
        m.d.sync += record_beats.eq(job.record_bytes >> exact_log2(c.bus_bytes))
        self._requests(m, asked, size, record_beats)

        # Addresses of the slices of K, and of the ports' V, one after the other.
        k_at = register(m, Cat(self.k.beat, self.k.step, self.k.slot))
        v_at = register(m, Cat(self.v.beat, self.v.step, self.v.slot))
        slices, banks = [k_at], [v_at]
        for _ in range(s.slice, s.dims, s.slice):
            slices.append(delay(m, slices[-1], s.slice, reset_less=True))
        for _ in range(1, c.ports):
            banks.append(register(m, banks[-1]))

        # Banks, one a port, each filled by its own unpacker.
        for p in range(c.ports):
            m.submodules[f"unpack{p}"] = unpack = RecordUnpacker(s)
            turn = Signal(s.slot, name=f"turn{p}")
            connect(m, flipped(getattr(self, f"kv{p}").data), unpack.i)
            go = Signal(name=f"go{p}")
            count = Signal.like(unpack.count, name=f"count{p}")
            m.d.sync += [
                go.eq((asked & ~filled[p]).bit_select(turn, 1) & ~unpack.done),
                count.eq((size[turn] + (c.ports - 1 - p)) >> port_bits),
            ]
            m.d.comb += [
                unpack.go.eq(go),
                unpack.count.eq(count),
                unpack.format.eq(job.format),
                unpack.head_beats.eq(job.head_beats),
                unpack.places.eq(places),
                unpack.record_beats.eq(record_beats),
            ]
            with m.If(unpack.done):
                m.d.sync += [filled[p].bit_select(turn, 1).eq(1), turn.eq(turn + 1)]
            self._codes(m, p, unpack, turn, slices, banks[p])
            self._scales(m, p, unpack, turn)
        return m

    def _requests(self, m: Module, asked: Signal, size: data.View, record_beats: Signal) -> None:
        """The walk over KV heads, passes and blocks; a descriptor a port for each block, one after
        the other. Products are made by adding, which takes less than a block's transfer."""
        s, c, job = self._shape, self._shape.config, self.job
        port_bits = exact_log2(c.ports)
        kv_head = Signal.like(job.kv_heads)
        token = Signal.like(job.tokens)
        end = Signal(len(job.tokens) + 1)
        head_base = Signal(32)
        newest = Signal(s.position_bits)
        block = Signal(s.position_bits - 5)
        positions = Signal(range(KV_BLOCK + 1))
        slot = Signal(s.slot)
        offset = Signal(32)  # of the block on port 0
        block_bytes = job.record_bytes << (5 - port_bits)
        factor = Signal(block.shape())  # what is left of a product with the block's number
        shifted = Signal(32)
        steps = Signal(range(s.steps + 1))  # left of a sum of whole steps' records
        beats, beats_more = Signal(24), Signal(24)
        port = Signal(range(max(c.ports, 2)))
        address = Signal(32)
        ready = register(m, self.heads_ready > kv_head)
        channels = [getattr(self, f"kv{p}") for p in range(c.ports)]
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
                with m.If(ready):
                    m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += [
                    block.eq(newest[5:]),
                    factor.eq(newest[5:]),
                    shifted.eq(block_bytes),
                    offset.eq(head_base),
                    positions.eq(newest[:5] + 1),
                    beats.eq(0),
                ]
                m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += steps.eq(positions >> port_bits)
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                with m.If(factor[0]):
                    m.d.sync += offset.eq(offset + shifted)
                m.d.sync += [shifted.eq(shifted << 1), factor.eq(factor >> 1)]
                with m.If(steps != 0):
                    m.d.sync += [steps.eq(steps - 1), beats.eq(beats + record_beats)]
                with m.If((factor == 0) & (steps == 0)):
                    m.next = "ROOM"
            with m.State("ROOM"):
                m.d.sync += [
                    beats_more.eq(beats + record_beats),
                    address.eq(offset),
                    port.eq(0),
                ]
                with m.If(~asked.bit_select(slot, 1)):
                    m.next = "ASK"
            with m.State("ASK"):
                more = port < positions[:port_bits]
                for p, channel in enumerate(channels):
                    with m.If(port == p):
                        m.d.sync += [
                            channel.req.payload.address.eq(address),
                            channel.req.payload.beats.eq(Mux(more, beats_more, beats)),
                            channel.req.valid.eq(more | (beats != 0)),
                        ]
                m.d.sync += [address.eq(address + job.port_stride), port.eq(port + 1)]
                with m.If(port == c.ports - 1):
                    m.d.sync += [
                        size[slot].eq(positions),
                        asked.bit_select(slot, 1).eq(1),
                        slot.eq(slot + 1),
                    ]
                    m.next = "ASKED"
            with m.State("ASKED"):
                with m.If(~Cat(channel.req.valid for channel in channels).any()):
                    m.d.sync += [
                        block.eq(block - 1),
                        offset.eq(offset - block_bytes),
                        positions.eq(KV_BLOCK),
                        beats.eq(record_beats << exact_log2(s.steps)),
                    ]
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

    def _codes(
        self,
        m: Module,
        p: int,
        unpack: RecordUnpacker,
        turn: Signal,
        k_at: list[Value],
        v_at: Value,
    ) -> None:
        """Port p's K, in slices of lanes that are read one after the other, and its V."""
        s = self._shape
        code = unpack.code
        written = Cat(code.beat, code.position, turn)

        def bank(name: str, en: Value, word: Value, address: Value) -> Value:
            m.submodules[name] = words = memory.Memory(
                shape=len(word), depth=1 << len(written), init=[], attrs=BLOCK
            )
            write, read = words.write_port(), words.read_port()
            m.d.comb += [
                write.en.eq(en),
                write.addr.eq(written),
                write.data.eq(word),
                read.addr.eq(address),
                read.en.eq(1),
            ]
            return register(m, read.data)

        for first, at in zip(range(0, s.dims, s.slice), k_at, strict=True):
            part = code.data[16 * first : 16 * (first + s.slice)]
            word = bank(f"k{p}_{first}", code.en & ~code.v, part, at)
            for i in range(s.slice):
                lane = skewed(m, word.word_select(i, 16), i - s.is_late(i))
                m.d.comb += self.k.data[p][first + i].eq(lane)
        word = bank(f"v{p}", code.en & code.v, code.data, v_at)
        m.d.comb += self.v.data[p].eq(word)

    def _scales(self, m: Module, p: int, unpack: RecordUnpacker, turn: Signal) -> None:
        """Port p's scales of K and of V."""
        s = self._shape
        step = Signal(s.step)
        for name, port, word in (
            ("k", self.k_scale, unpack.scale.k),
            ("v", self.v_scale, unpack.scale.v),
        ):
            m.submodules[f"{name}_scales{p}"] = scales = memory.Memory(
                shape=32, depth=s.slots * s.steps, init=[], attrs=DISTRIBUTED
            )
            write, read = scales.write_port(), scales.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(unpack.scale.en),
                write.addr.eq(Cat(unpack.scale.position[: len(step)], turn)),
                write.data.eq(word),
                read.addr.eq(Cat(port.step, port.slot)),
                port.data[p].eq(register(m, read.data)),
            ]
