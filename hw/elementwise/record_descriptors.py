"""Where the records of a KV_QUANT go in DRAM, and which of them have got there."""

from __future__ import annotations

from collections.abc import Iterator

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..axi.bursts import descriptor_layout
from ..config import AcceleratorConfig
from ..interfaces import command_layout, op_view
from ..isa import Op


def record_address(config: AcceleratorConfig, values: dict, kv_head: int, position: int) -> int:
    """Byte offset of a record; `values` are the fields of KV_QUANT (or ATTENTION)."""
    return (
        values["address"]
        + position % config.ports * values["port_stride"]
        + kv_head * values["head_stride"]
        + position // config.ports * values["record_bytes"]
    )


def token_groups(config: AcceleratorConfig, tokens: int) -> list[range]:
    """Tokens of a chunk by port, as records of a KV head are written: those of a port lie side by
    side."""
    return [range(r, tokens, config.ports) for r in range(min(tokens, config.ports))]


def reference(
    config: AcceleratorConfig, values: dict, tokens: int, position: int
) -> Iterator[tuple[int, int]]:
    """Descriptors (address, beats) of a KV_QUANT with these fields."""
    beats = values["record_bytes"] // config.bus_bytes
    for head in range(values["kv_heads"]):
        for group in token_groups(config, tokens):
            address = record_address(config, values, head, position + group[0])
            yield address, len(group) * beats


class RecordDescriptors(Component):
    """Offers a descriptor for the records of each KV head and port, in the order of `token_groups`,
    and counts the heads that the memory has acknowledged.

    Latency: four cycles from `start` to the first descriptor, two to the next of a head, three to
    the next head. Back-pressure: `req`. Reset: idle, no head is done.

    Ports
    -----
    clear : strobe, sets `heads_done` to zero.
    start, command : strobe, and the command held while `busy`.
    req, count, done : descriptors to the write channel, their records, a strobe back for each.
    heads_done : heads all of whose descriptors are done.
    busy : from the cycle after `start` until all heads are.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "clear": In(1),
                "start": In(1),
                "command": In(command_layout()),
                "req": Out(stream.Signature(descriptor_layout())),
                "count": Out(range(-(-config.chunk // config.ports) + 1)),
                "done": In(1),
                "heads_done": Out(range(config.max_heads + 1)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        fields = op_view(self.command, Op.KV_QUANT)
        port_bits = exact_log2(c.ports)
        port_index = range(max(c.ports, 2))
        position, tokens = self.command.position, self.command.tokens
        record_beats = fields["record_bytes"] >> exact_log2(c.bus_bytes)

        # Groups of tokens: the first `longer` of them have a record more than the others.
        last_group = Signal(port_index)
        shorter = tokens >> port_bits
        longer = tokens[:port_bits]
        shorter_beats = Signal(24)
        group = Signal(port_index)
        with m.If(tokens < c.ports):
            m.d.comb += last_group.eq(tokens - 1)
        with m.Else():
            m.d.comb += last_group.eq(c.ports - 1)

        # A head's first slot, and the place of the group in hand.
        turn = Signal(32)
        first_port_offset = Signal(32)
        head_place = Signal(32)
        place = Signal(32)
        port = Signal(port_index)
        head = Signal(8)
        multiple = Mux(position[0], fields["port_stride"], 0)
        if port_bits == 2:
            multiple = multiple + Mux(position[1], fields["port_stride"] << 1, 0)
        m.d.comb += [
            self.req.payload.address.eq(place),
            self.req.payload.beats.eq(shorter_beats + Mux(group < longer, record_beats, 0)),
            self.count.eq(shorter + (group < longer)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += head.eq(0)
                with m.If(self.start):
                    m.next = "TURN"
            with m.State("TURN"):
                m.d.sync += [
                    turn.eq((position >> port_bits)[:16] * fields["record_bytes"]),
                    shorter_beats.eq(shorter[: len(self.count)] * record_beats),
                    first_port_offset.eq(multiple if port_bits else 0),
                ]
                m.next = "PLACE"
            with m.State("PLACE"):
                m.d.sync += head_place.eq(fields["address"] + turn)
                m.next = "HEAD"
            with m.State("HEAD"):
                m.d.sync += [
                    place.eq(head_place + first_port_offset),
                    port.eq(position[:port_bits]),
                    group.eq(0),
                ]
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.req.valid.eq(1)
                with m.If(self.req.ready):
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += [
                    group.eq(group + 1),
                    port.eq(port + 1),
                    place.eq(place + fields["port_stride"]),
                ]
                with m.If(port == c.ports - 1):
                    m.d.sync += [port.eq(0), place.eq(head_place + fields["record_bytes"])]
                m.next = "OFFER"
                with m.If(group == last_group):
                    m.d.sync += [
                        head.eq(head + 1),
                        head_place.eq(head_place + fields["head_stride"]),
                    ]
                    m.next = "HEAD"
                    with m.If(head + 1 == fields["kv_heads"]):
                        m.next = "IDLE"

        # Answers come in the order of the descriptors.
        answered = Signal(port_index)  # groups of the head in turn
        with m.If(self.done):
            m.d.sync += answered.eq(answered + 1)
            with m.If(answered == last_group):
                m.d.sync += [answered.eq(0), self.heads_done.eq(self.heads_done + 1)]
                with m.If(self.heads_done + 1 == fields["kv_heads"]):
                    m.d.sync += self.busy.eq(0)
        with m.If(self.clear):
            m.d.sync += self.heads_done.eq(0)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)
        return m
