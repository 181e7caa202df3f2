"""Widths and layouts that the parts of the attention unit share."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Module, Shape, Value, unsigned
from amaranth.lib import data

from ..config import KV_BLOCK
from ..fp import delay
from ..isa import KvFormat
from .geometry import ITEMS, AttentionGeometry

READ_LATENCY = 3
"""Cycles from an address to the first operands of the multipliers: codes of K, V and Q, weights."""
LANES_A_SLICE = 4
"""Lanes of a word that lie in one memory, where lanes are read one after the other."""

WEIGHT_BITS = 23
"""A weight of the numerator, at most 2**22."""
SUM_BITS = 43
"""Sum of 32 weights times int16 codes."""
SCALE_BITS = 11
"""Power of two between numerator and denominator, signed."""
MAX_BITS = 11
"""A running maximum, signed: floor(score) in -512..511, plus an exponent field up to 254."""
RISE_BITS = 6
"""A rise of a maximum, clamped to 63: more than any width that it shifts."""

DISTRIBUTED = {"ram_style": "distributed"}
"""Attributes of a memory of LUTs."""
BLOCK = {"ram_style": "block"}
"""Attributes of a memory of RAM blocks."""


def skewed(m: Module, code: Value, cycles: int) -> Value:
    """A code `cycles` cycles later, at most 3: in registers, of which a device has more to spare
    than of LUTs. They have a reset, which a shift register of LUTs can't have."""
    return delay(m, code, cycles)


@dataclass(frozen=True)
class AttentionShape(AttentionGeometry):
    """The geometry with the signals that it leads to."""

    @property
    def word_bits(self) -> int:
        """A word of int16 codes."""
        return 16 * self.dims

    @property
    def slice(self) -> int:
        """Lanes of a slice."""
        return min(LANES_A_SLICE, self.config.lanes)

    def is_late(self, lane: int) -> bool:
        """The last lane of a slice waits in its multiplier for the last of its cycles."""
        return self.slice > 1 and lane % self.slice == self.slice - 1

    @property
    def dot_bits(self) -> int:
        """q.k of the longest head, signed."""
        return 30 + (self.config.max_head_dim - 1).bit_length() + 1

    @property
    def position_bits(self) -> int:
        return self.config.max_context.bit_length()

    @property
    def l_bits(self) -> int:
        """A denominator: weights below 2**24 of all positions."""
        return 24 + (self.config.max_context - 1).bit_length()

    @property
    def o_bits(self) -> int:
        """An unnormalised output, signed: weights of 2**22 times codes of 2**15."""
        return 22 + 15 + (self.config.max_context - 1).bit_length() + 1

    @property
    def beat(self) -> Shape:
        return Shape.cast(range(max(self.beats, 2)))

    @property
    def slot(self) -> Shape:
        return Shape.cast(range(self.slots))

    @property
    def step(self) -> Shape:
        """Group of positions of a block."""
        return Shape.cast(range(max(self.steps, 2)))

    @property
    def tile(self) -> Shape:
        return Shape.cast(range(max(self.tiles, 2)))

    @property
    def lane(self) -> Shape:
        """Row of a tile."""
        return Shape.cast(range(max(self.rows, 2)))

    @property
    def index(self) -> Shape:
        """Number of an item, modulo ITEMS."""
        return Shape.cast(range(ITEMS))

    @property
    def token(self) -> Shape:
        return Shape.cast(range(max(self.config.chunk, 2)))

    @property
    def q_row(self) -> Shape:
        """A row of Q, token * max_heads + head, and those that a walk runs over."""
        return Shape.cast(range((self.config.chunk + 1) * self.config.max_heads))

    @property
    def out_word(self) -> Shape:
        """A word of the row memory of attention outputs, and one past it."""
        c = self.config
        return Shape.cast(range(c.longest_row // c.lanes + 1))

    def job(self) -> data.StructLayout:
        """An ATTENTION command with its chunk, as the parts of the unit use it."""
        c = self.config
        return data.StructLayout(
            {
                "position": unsigned(self.position_bits),
                "tokens": Shape.cast(range(c.chunk + 1)),
                "heads_per_kv": Shape.cast(range(c.max_heads + 1)),
                "kv_heads": Shape.cast(range(c.max_heads + 1)),
                "format": Shape.cast(KvFormat),
                "head_beats": Shape.cast(range(self.beats + 1)),
                "address": unsigned(32),
                "head_stride": unsigned(32),
                "port_stride": unsigned(32),
                "record_bytes": unsigned(16),
                "pass_tokens": Shape.cast(range(c.chunk + 1)),
            }
        )

    def item(self) -> data.StructLayout:
        """A tile on a KV block."""
        return data.StructLayout(
            {
                "tile": self.tile,
                "slot": self.slot,
                "steps": Shape.cast(range(self.steps + 1)),  # those that any row sees
                "closes": unsigned(1),  # the tile's last item
                "frees": unsigned(1),  # the block's last item
            }
        )

    def row(self) -> data.StructLayout:
        """A row of an item, as its softmax needs it."""
        return data.StructLayout(
            {
                "q_row": self.q_row,
                "limit": Shape.cast(range(KV_BLOCK)),  # newest position that it sees
                "active": unsigned(1),  # it sees one
                "first": unsigned(1),  # of its blocks
            }
        )

    def place(self) -> data.StructLayout:
        """Where a row's outputs go."""
        return data.StructLayout(
            {"active": unsigned(1), "token": self.token, "word": self.out_word}
        )

    def tag(self) -> data.StructLayout:
        """A row of an item in a pipeline."""
        return data.StructLayout(
            {"index": self.index, "lane": self.lane, "tile": self.tile, "closes": unsigned(1)}
        )

    def rise(self) -> data.StructLayout:
        """What happens to a row's outputs before an item's sums are added."""
        return data.StructLayout({"rise": unsigned(RISE_BITS), "first": unsigned(1)})

    def factor(self) -> data.StructLayout:
        """What a row's outputs are multiplied by: inverse * 2**scale."""
        return data.StructLayout({"inverse": unsigned(32), "scale": Shape(SCALE_BITS, signed=True)})
