"""Records of the KV cache: codes and scales of one token and KV head, on their way to DRAM."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..axi.width import WidthConverter
from ..config import AcceleratorConfig
from ..interfaces import WriteChannelSignature, command_layout, op_view, row_words
from ..isa import Op
from ..numeric import F32, I64
from .lanes import codes_layout
from .passes import Kind, tag_layout

SLOTS = 2
"""Records on their way: one is filled while one drains."""


def reference(
    k_codes: I64, v_codes: I64, k_scales: F32, v_scales: F32, record_bytes: int
) -> np.ndarray:
    """Records as bytes [..., record_bytes] of codes [..., head_dim] and scales [...]."""
    parts = [k_codes.astype("<i2"), v_codes.astype("<i2")]
    parts += [s[..., None].astype("<f4") for s in (k_scales, v_scales)]
    body = np.concatenate([np.ascontiguousarray(p).view(np.uint8) for p in parts], axis=-1)
    records = np.zeros((*k_scales.shape, record_bytes), np.uint8)
    records[..., : body.shape[-1]] = body
    return records


def record_address(config: AcceleratorConfig, values: dict, kv_head: int, position: int) -> int:
    """Byte offset of a record; `values` are the fields of KV_QUANT (or ATTENTION)."""
    return (
        values["address"]
        + position % config.ports * values["port_stride"]
        + kv_head * values["head_stride"]
        + position // config.ports * values["record_bytes"]
    )


class _Part(enum.Enum, shape=2):
    """Where the next word of a record comes from."""

    KEY = 0
    VALUE = 1
    SCALES = 2
    ZEROS = 3


class RecordWriter(Component):
    """Gathers K and V heads, which alternate, in record buffers and writes them to the KV cache.

    A record is K codes, V codes, K scale, V scale and zeros up to `record_bytes`. Records come in
    the order of the tokens and, within one, of the KV heads; each is one descriptor to the place
    that `record_address` gives.

    Latency: a record is sent from the cycle after its last code on. Throughput: the smaller of a
    bus word and a word of codes a cycle, five cycles more a record. Back-pressure: with all `SLOTS`
    buffers taken `hold` keeps the next K head from beginning. `busy` until every record is written
    and acknowledged. Reset drops everything.

    Ports
    -----
    start, command : strobe, and the command held while `busy`.
    begin, tag, factor, hold : a head's pass begins; its scale; from and to the Passes unit.
    codes : from the lanes; those of other kinds are ignored.
    kv : write channel of the KV cache.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "command": In(command_layout()),
                "busy": Out(1),
                "begin": In(1),
                "tag": In(tag_layout(config)),
                "factor": In(32),
                "hold": Out(1),
                "codes": In(codes_layout(config)),
                "kv": Out(WriteChannelSignature(config.bus_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, Op.KV_QUANT)
        word_bits = 16 * c.lanes
        head_words = row_words(c, c.max_head_dim)
        index_bits = ceil_log2(head_words)
        codes = self.codes
        tag = codes.tag

        # Scales come when a head's pass begins, a record is allocated with its K.
        taken = Signal(range(SLOTS + 1))
        allocated, drained = Signal(), Signal()
        slot = Signal()  # of the record that is begun
        k_scale = Signal(data.ArrayLayout(unsigned(32), SLOTS))
        v_scale = Signal(data.ArrayLayout(unsigned(32), SLOTS))
        m.d.comb += [
            self.hold.eq((self.tag.kind == Kind.KEY) & (taken == SLOTS)),
            allocated.eq(self.begin & (self.tag.kind == Kind.KEY)),
        ]
        m.d.sync += taken.eq(taken + allocated - drained)
        with m.If(allocated):
            m.d.sync += k_scale[slot].eq(self.factor)
        with m.If(self.begin & (self.tag.kind == Kind.VALUE)):
            m.d.sync += [v_scale[slot].eq(self.factor), slot.eq(~slot)]

        # Codes.
        word = Signal(range(max(head_words, 2)))
        fill = Signal()  # slot that codes go to
        filled = Signal(range(SLOTS + 1))
        record_done = Signal()
        valid = codes.valid & ((tag.kind == Kind.KEY) | (tag.kind == Kind.VALUE))
        with m.If(valid):
            m.d.sync += word.eq(Mux(codes.last, 0, word + 1))
        m.d.comb += record_done.eq(valid & codes.last & (tag.kind == Kind.VALUE))
        with m.If(record_done):
            m.d.sync += fill.eq(~fill)
        m.d.sync += filled.eq(filled + record_done - drained)
        m.submodules.memory = records = Memory(
            shape=unsigned(word_bits), depth=2 * SLOTS << index_bits, init=[]
        )
        write = records.write_port()
        read = records.read_port(transparent_for=())
        m.d.comb += [
            write.en.eq(valid),
            write.addr.eq(Cat(word[:index_bits], tag.kind == Kind.VALUE, fill)),
            write.data.eq(Cat(codes.codes[i] for i in range(c.lanes))),
        ]

        # Where records go: token by token, port by port.
        to_write = Signal(16)  # tokens, this one included
        start_slot = Signal(16)
        place = Signal(32)  # address and the whole turns of the ports
        offsets = Signal(32)  # port and KV head
        port = Signal(max(exact_log2(c.ports), 1))
        port_offset = Signal(32)
        head = Signal(8)
        turn = Signal(32)
        port_bits = exact_log2(c.ports)
        beats = Signal(16)
        beat = Signal(16)

        # Words of the record in turn, read ahead by one.
        drain = Signal()  # slot that is sent
        part = Signal(_Part)
        index = Signal(16)
        sent = Signal(_Part)  # the same of the word that was read
        second = Signal()  # of two scale words
        loaded = Signal()
        advance = Signal()
        reading = Signal()
        m.submodules.width = width = WidthConverter(word_bits, c.bus_bits)
        scales = Cat(k_scale[drain], v_scale[drain])
        scale_words = max(1, 64 // word_bits)
        m.d.comb += [
            advance.eq(reading & (~loaded | width.i.ready)),
            read.addr.eq(Cat(index[:index_bits], part == _Part.VALUE, drain)),
            read.en.eq(advance),
            width.i.valid.eq(loaded),
        ]
        with m.Switch(sent):
            with m.Case(_Part.SCALES):
                halves = Mux(second, scales[32:], scales[:32]) if scale_words == 2 else scales
                m.d.comb += width.i.payload.eq(halves)
            with m.Case(_Part.ZEROS):
                m.d.comb += width.i.payload.eq(0)
            with m.Default():
                m.d.comb += width.i.payload.eq(read.data)
        with m.If(advance):
            m.d.sync += [loaded.eq(1), sent.eq(part), second.eq(index[0]), index.eq(index + 1)]
            ends = Mux(part == _Part.SCALES, scale_words, fields["head_ew"])
            with m.If((index + 1 == ends) & (part != _Part.ZEROS)):
                m.d.sync += [index.eq(0), part.eq(part.as_value() + 1)]

        m.d.comb += [
            self.kv.req.payload.address.eq(place + offsets),
            self.kv.req.payload.beats.eq(beats),
            self.kv.data.payload.data.eq(width.o.payload),
            self.kv.data.payload.strobe.eq(~0),
        ]
        m.d.comb += self.busy.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(~self.kv.idle)
                m.d.sync += [
                    to_write.eq(self.command.tokens),
                    start_slot.eq(self.command.position >> port_bits),
                    port.eq(self.command.position[:port_bits]),
                    beats.eq(fields["record_bytes"] >> exact_log2(c.bus_bytes)),
                    head.eq(0),
                ]
                with m.If(self.start):
                    m.next = "TURN"
            with m.State("TURN"):
                stride = fields["port_stride"]
                multiple = Mux(port[0], stride, 0)
                if port_bits == 2:
                    multiple = multiple + Mux(port[1], stride << 1, 0)
                m.d.sync += [turn.eq(start_slot * fields["record_bytes"]), port_offset.eq(multiple)]
                m.next = "PLACE"
            with m.State("PLACE"):
                m.d.sync += [place.eq(fields["address"] + turn), offsets.eq(port_offset)]
                m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += width.clear.eq(1)
                m.d.sync += [beat.eq(beats), part.eq(_Part.KEY), index.eq(0), loaded.eq(0)]
                with m.If(filled != 0):
                    m.d.comb += self.kv.req.valid.eq(1)
                    with m.If(self.kv.req.ready):
                        m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [
                    reading.eq(1),
                    self.kv.data.valid.eq(width.o.valid),
                    width.o.ready.eq(self.kv.data.ready),
                ]
                with m.If(self.kv.data.valid & self.kv.data.ready):
                    m.d.sync += beat.eq(beat - 1)
                    with m.If(beat == 1):
                        m.d.comb += drained.eq(1)
                        m.d.sync += [
                            drain.eq(~drain),
                            head.eq(head + 1),
                            offsets.eq(offsets + fields["head_stride"]),
                        ]
                        m.next = "WAIT"
                        with m.If(head + 1 == fields["kv_heads"]):
                            m.d.sync += [head.eq(0), to_write.eq(to_write - 1)]
                            m.next = "TOKEN"
            with m.State("TOKEN"):
                m.d.sync += [port.eq(port + 1), port_offset.eq(port_offset + fields["port_stride"])]
                m.d.sync += offsets.eq(port_offset + fields["port_stride"])
                with m.If(port == c.ports - 1):
                    m.d.sync += [
                        port.eq(0),
                        port_offset.eq(0),
                        offsets.eq(0),
                        place.eq(place + fields["record_bytes"]),
                    ]
                m.next = "WAIT"
                with m.If(to_write == 0):
                    m.next = "IDLE"
        return m
