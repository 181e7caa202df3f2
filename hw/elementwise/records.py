"""Records of the KV cache: codes and scales of one token and KV head, on their way to DRAM."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from ..config import AcceleratorConfig
from ..interfaces import WriteChannelSignature, command_layout, op_view
from ..isa import KvFormat, Op
from ..record_places import record_places
from .code_packer import CodePacker
from .lanes import codes_layout
from .passes import Kind, tag_layout
from .record_descriptors import RecordDescriptors

SLOTS = 2
"""Records on their way: one is filled while one drains."""


class RecordWriter(Component):
    """Gathers K and V heads, which alternate, in record buffers and writes them to the KV cache.

    Records, of the layout in `kv_records`, come in the order of `record_descriptors`: those of a
    KV head and port one after the other, as one descriptor.

    Latency: a record is sent from three cycles after its last codes on. Throughput: a word of codes
    in and a bus word out a cycle, and up to four cycles more a descriptor. Back-pressure: with all
    `SLOTS` buffers taken `hold` keeps the next K head from beginning. `busy` until every record is
    written and acknowledged. Reset drops everything.

    Ports
    -----
    clear : strobe, sets `heads_done` to zero.
    start, command : strobe, and the command held while `busy`.
    begin, tag, factor, hold : a head's pass begins; its scale; from and to the Passes unit.
    codes : from the lanes; those of other kinds are ignored.
    kv : write channel of the KV cache.
    heads_done : KV heads all of whose records are acknowledged.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        self._word_bits = max(config.bus_bits, 16 * config.lanes)  # of a buffer
        super().__init__(
            {
                "clear": In(1),
                "start": In(1),
                "command": In(command_layout()),
                "busy": Out(1),
                "begin": In(1),
                "tag": In(tag_layout(config)),
                "factor": In(32),
                "hold": Out(1),
                "codes": In(codes_layout(config)),
                "kv": Out(WriteChannelSignature(config.bus_bits)),
                "heads_done": Out(range(config.max_heads + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, Op.KV_QUANT)
        m.submodules.descriptors = descriptors = RecordDescriptors(c)
        connect(m, descriptors.req, flipped(self.kv.req))
        owed = Signal(range(2 * c.chunk))  # records of descriptors that were taken
        asked = self.kv.req.valid & self.kv.req.ready
        m.d.comb += [
            descriptors.clear.eq(self.clear),
            descriptors.start.eq(self.start),
            descriptors.command.eq(self.command),
            descriptors.done.eq(self.kv.done),
            self.heads_done.eq(descriptors.heads_done),
            self.busy.eq(descriptors.busy),
        ]
        slot_bits = exact_log2(SLOTS)
        index_bits = ceil_log2(-(-2 * KvFormat.INT16.bits * c.max_head_dim // self._word_bits))
        m.submodules.memory = memory = Memory(
            shape=unsigned(self._word_bits), depth=SLOTS << index_bits, init=[]
        )
        drained = Signal()  # a record's last word is given away

        # Scales come when a head's pass begins; a record is allocated with its K.
        taken = Signal(range(SLOTS + 1))
        slot = Signal(slot_bits)  # of the record that is begun
        scales = Signal(data.ArrayLayout(data.ArrayLayout(unsigned(32), 2), SLOTS))
        is_key, is_value = self.tag.kind == Kind.KEY, self.tag.kind == Kind.VALUE
        full, following = Signal(), Signal.like(taken)
        # A cycle late: after a K head comes its V head, which is not held.
        begin_key, begin_value, factor = Signal(), Signal(), Signal(32)
        m.d.comb += [
            self.hold.eq(is_key & full),
            following.eq(taken + begin_key - drained),
        ]
        m.d.sync += [
            taken.eq(following),
            full.eq(following == SLOTS),
            begin_key.eq(self.begin & is_key),
            begin_value.eq(self.begin & is_value),
            factor.eq(self.factor),
        ]
        with m.If(begin_key):
            m.d.sync += scales[slot][0].eq(factor)
        with m.If(begin_value):
            m.d.sync += [scales[slot][1].eq(factor), slot.eq(slot + 1)]

        # Codes in.
        kind = self.codes.tag.kind
        m.submodules.packer = packer = CodePacker(c.lanes, self._word_bits)
        write = memory.write_port()
        stored = packer.o_valid & packer.o_last
        fill = Signal(slot_bits)
        to_word = Signal(index_bits)
        m.d.comb += [
            packer.format.eq(fields["format"]),
            packer.valid.eq(self.codes.valid & ((kind == Kind.KEY) | (kind == Kind.VALUE))),
            packer.last.eq(self.codes.last & (kind == Kind.VALUE)),
            packer.codes.eq(Cat(self.codes.codes[i] for i in range(c.lanes))),
            write.en.eq(packer.o_valid),
            write.addr.eq(Cat(to_word, fill)),
            write.data.eq(packer.o),
        ]
        with m.If(packer.o_valid):
            m.d.sync += to_word.eq(Mux(packer.o_last, 0, to_word + 1))
        with m.If(stored):
            m.d.sync += fill.eq(fill + 1)

        # Bus words out, read ahead by one.
        places = record_places(m, c, fields["format"], fields["head_ew"], c.lanes)
        read = memory.read_port(transparent_for=())
        part_bits = exact_log2(self._word_bits // c.bus_bits)  # bus words of a buffer's word
        filled = Signal(range(SLOTS + 1))  # records that are not read to their end
        drain = Signal(slot_bits)
        beat = Signal(16)
        loaded = Signal()
        shown = Signal(
            data.StructLayout(
                {"code": 1, "part": max(part_bits, 1), "scales": 2, "slot": slot_bits, "last": 1}
            )
        )
        advance, ends = Signal(), Signal()
        m.d.comb += [
            advance.eq((owed != 0) & (filled != 0) & (~loaded | self.kv.data.ready)),
            ends.eq(advance & (beat + 1 == fields["record_bytes"] >> exact_log2(c.bus_bytes))),
            read.addr.eq(Cat((beat >> part_bits)[:index_bits], drain)),
            read.en.eq(advance),
            drained.eq(loaded & self.kv.data.ready & shown.last),
        ]
        m.d.sync += [
            owed.eq(owed + Mux(asked, descriptors.count, 0) - ends),
            filled.eq(filled + stored - ends),
        ]
        with m.If(self.kv.data.ready):
            m.d.sync += loaded.eq(0)
        with m.If(advance):
            m.d.sync += [
                loaded.eq(1),
                shown.code.eq(beat < places.codes),
                shown.part.eq(beat[:part_bits]),
                shown.scales.eq(Cat(beat == places.scales, beat == places.scales + 1)),
                shown.slot.eq(drain),
                shown.last.eq(ends),
                beat.eq(Mux(ends, 0, beat + 1)),
                drain.eq(drain + ends),
            ]
        code = read.data.word_select(shown.part[:part_bits], c.bus_bits)
        m.d.comb += [
            self.kv.data.valid.eq(loaded),
            self.kv.data.payload.data.eq(
                Mux(shown.code, code, 0)
                | self._scale_word(scales[shown.slot], shown.scales, places.lane)
            ),
            self.kv.data.payload.strobe.eq(~0),
        ]
        return m

    def _scale_word(self, scales: data.View, shown: Value, lane: Value) -> Value:
        """What the scales of K and V put into a bus word: `shown` is high for that in which they
        begin, and for the next."""
        bus = self._config.bus_bits
        k, v = scales
        if bus < 64:
            return Mux(shown[0], k, 0) | Mux(shown[1], v, 0)
        pair = Cat(k, v)
        return Cat(Mux(shown[0] & (lane == i), pair, 0) for i in range(bus // 64))
