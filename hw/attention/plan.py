"""The order of work: which tile of query rows meets which KV block."""

from __future__ import annotations

from amaranth import Cat, Module, Shape, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..config import KV_BLOCK
from .geometry import ITEMS
from .shape import DISTRIBUTED, AttentionShape


class Planner(Component):
    """Walks KV heads, passes of queries, blocks from the newest to block 0, and tiles; describes
    an item wherever a row of the tile sees a position of the block.

    Rows of a pass are (token, query head), row = token * heads_per_kv + head, in tiles of
    `rows`. Item n is described under index n mod ITEMS: `items` by item, `rows` and `places` by row
    of the item, each read in the cycle of the address. `described` counts the items, modulo 2 *
    ITEMS; an index is used again once `summed`, which counts those that are over, has passed it.

    `start` (one cycle, `job` stable from then on) begins a command; `busy` is high until its last
    item is described. An item takes rows + 4 cycles, and so does a tile that sees nothing. Reset:
    idle, counters at 0.
    """

    ITEM_READERS = 3

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        index = {"index": Out(s.index)}
        lane = index | {"lane": Out(s.lane)}
        super().__init__(
            {
                "start": In(1),
                "job": In(s.job()),
                "busy": Out(1),
                "described": Out(range(2 * ITEMS)),
                "summed": In(range(2 * ITEMS)),
                **{
                    f"items{n}": In(Signature(index | {"data": In(s.item())}))
                    for n in range(self.ITEM_READERS)
                },
                "q_rows": In(Signature(lane | {"data": In(s.q_row)})),
                "rows": In(Signature(lane | {"data": In(s.row())})),
                "places": In(Signature(lane | {"data": In(s.place())})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c, job = self._shape, self._shape.config, self.job

        # A row of the walk, and the first one of the pass.
        cursor = data.StructLayout(
            {
                "token": Shape.cast(range(c.chunk + 1)),
                "position": Shape.cast(range(c.max_context + c.chunk)),
                "left": Shape.cast(range(c.max_heads + 1)),  # heads of the token
                "q_row": s.q_row,
                "word": s.out_word,
            }
        )
        at, first = Signal(cursor), Signal(cursor)
        kv_head = Signal.like(job.kv_heads)
        head_row = Signal(s.q_row)  # of the KV head's first query head, token 0
        head_word = Signal(s.out_word)
        next_word = Signal(s.out_word)  # of the next KV head
        end = Signal(len(job.tokens) + 1)
        block = Signal(s.position_bits - 5)
        slot = Signal(s.slot)
        tile = Signal(s.tile)
        lane = Signal(s.lane)

        # What the row sees of the block.
        row_block = at.position[5:]
        exists = at.token != end
        active = exists & (row_block >= block)
        limit = Signal(range(KV_BLOCK))
        m.d.comb += limit.eq(at.position[:5])
        with m.If(row_block != block):
            m.d.comb += limit.eq(KV_BLOCK - 1)
        seen = Signal()  # any row so far
        newest = Signal(range(KV_BLOCK))  # of the positions; rows are in order of position
        walking = Signal()
        describe = Signal()
        room = (self.described - self.summed)[: ITEMS.bit_length()] != ITEMS

        head_words = job.head_beats * s.parts
        with m.FSM(name="plan") as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    kv_head.eq(0),
                    head_row.eq(0),
                    head_word.eq(0),
                    first.token.eq(0),
                    first.position.eq(job.position),
                    first.left.eq(job.heads_per_kv),
                    first.q_row.eq(0),
                    first.word.eq(0),
                ]
                with m.If(self.start):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.sync += end.eq(first.token + job.pass_tokens)
                m.next = "LIMIT"
            with m.State("LIMIT"):
                with m.If(end > job.tokens):
                    m.d.sync += end.eq(job.tokens)
                m.next = "NEWEST"
            with m.State("NEWEST"):
                m.d.sync += at.position.eq(job.position + end - 1)
                m.next = "FIRST"
            with m.State("FIRST"):
                m.d.sync += block.eq(at.position[5:])
                m.next = "BLOCK"
            with m.State("BLOCK"):
                m.d.sync += [at.eq(first), tile.eq(0)]
                m.next = "TILE"
            with m.State("TILE"):
                m.d.sync += [lane.eq(0), seen.eq(0)]
                with m.If(room):
                    m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += walking.eq(1)
                with m.If(active):
                    m.d.sync += [seen.eq(1), newest.eq(limit)]
                with m.If(exists):
                    m.d.sync += [
                        at.left.eq(at.left - 1),
                        at.q_row.eq(at.q_row + 1),
                        at.word.eq(at.word + head_words),
                    ]
                    with m.If(at.left == 1):
                        m.d.sync += [
                            at.left.eq(job.heads_per_kv),
                            at.token.eq(at.token + 1),
                            at.position.eq(at.position + 1),
                            at.q_row.eq(at.q_row + c.max_heads + 1 - job.heads_per_kv),
                            at.word.eq(head_word),
                            next_word.eq(at.word + head_words),
                        ]
                m.d.sync += lane.eq(lane + 1)
                with m.If(lane == s.rows - 1):
                    m.next = "ITEM"
            with m.State("ITEM"):
                m.d.comb += describe.eq(seen)
                m.d.sync += tile.eq(tile + 1)
                m.next = "TILE"
                with m.If(~exists):
                    m.d.sync += [slot.eq(slot + 1), block.eq(block - 1)]
                    m.next = "BLOCK"
                    with m.If(block == 0):
                        m.d.sync += first.eq(at)
                        m.next = "PASS"
                        with m.If(end == job.tokens):
                            m.next = "HEAD"
            with m.State("HEAD"):
                m.d.sync += [
                    kv_head.eq(kv_head + 1),
                    head_row.eq(head_row + job.heads_per_kv),
                    head_word.eq(next_word),
                ]
                m.next = "NEXT"
                with m.If(kv_head == job.kv_heads - 1):
                    m.next = "IDLE"
            with m.State("NEXT"):
                m.d.sync += [
                    first.token.eq(0),
                    first.position.eq(job.position),
                    first.left.eq(job.heads_per_kv),
                    first.q_row.eq(head_row),
                    first.word.eq(head_word),
                ]
                m.next = "PASS"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        with m.If(describe):
            m.d.sync += self.described.eq(self.described + 1)

        index = self.described[: len(Signal(s.index))]
        item = Signal(s.item())
        m.d.comb += [
            item.tile.eq(tile),
            item.slot.eq(slot),
            item.steps.eq((newest >> (c.ports.bit_length() - 1)) + 1),
            item.closes.eq(block == 0),
            item.frees.eq(~exists),
        ]
        for n in range(self.ITEM_READERS):
            port = getattr(self, f"items{n}")
            self._table(m, f"item{n}", item, describe, index, port.index, port.data)
        row, place = Signal(s.row()), Signal(s.place())
        m.d.comb += [
            row.q_row.eq(at.q_row),
            row.limit.eq(limit),
            row.active.eq(active),
            row.first.eq(row_block == block),
            place.active.eq(active),
            place.token.eq(at.token),
            place.word.eq(at.word),
        ]
        to = Cat(lane, index)
        for name, entry, port in (
            ("q_rows", row.q_row, self.q_rows),
            ("rows", row, self.rows),
            ("places", place, self.places),
        ):
            self._table(m, name, entry, walking, to, Cat(port.lane, port.index), port.data)
        return m

    @staticmethod
    def _table(
        m: Module, name: str, entry: Value, en: Value, at: Value, read_at: Value, to: Value
    ) -> None:
        """A memory of descriptions with one reader."""
        bits = Value.cast(entry)
        m.submodules[name] = table = memory.Memory(
            shape=bits.shape(), depth=1 << len(at), init=[], attrs=DISTRIBUTED
        )
        write, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(en),
            write.addr.eq(at),
            write.data.eq(bits),
            read.addr.eq(read_at),
            Value.cast(to).eq(read.data),
        ]
