"""Widths and layouts that the parts of the attention unit share."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Shape, unsigned
from amaranth.lib import data

from ..config import KV_BLOCK, AcceleratorConfig
from ..isa import KvFormat

READ_LATENCY = 3
"""Cycles from an address to the operands of the multipliers: codes of K, V and Q, weights."""

SLOTS = 4
"""KV blocks on chip: two in use, the others loading ahead."""

DOT_BITS = 40
"""q.k of up to 256 int16 products."""
WEIGHT_BITS = 23
"""A weight of the numerator, at most 2**22."""
SUM_BITS = 43
"""Sum of 32 weights times int16 codes."""
MAX_BITS = 11
"""A running maximum, signed: floor(score) in -512..511, plus an exponent field up to 254."""
RISE_BITS = 6
"""A rise of a maximum, clamped to 63: more than any width that it shifts."""
OUTPUT_ROWS_DEPTH = 512
"""Words of the memory of unnormalised outputs: the depth of a wide block memory."""


@dataclass(frozen=True)
class AttentionShape:
    """Derived parameters of the attention unit."""

    config: AcceleratorConfig
    max_rows: int
    """Query rows (token, query head of one KV head) on chip at once."""

    @classmethod
    def of(cls, config: AcceleratorConfig, max_rows: int | None = None) -> AttentionShape:
        """`max_rows` defaults to what fills the output memory, and is rounded up to whole groups.

        Raises ValueError when the query heads of one token would not fit.
        """
        beats = config.max_head_dim // config.attention_dims
        if max_rows is None:
            most = config.chunk * config.max_heads
            max_rows = min(max(config.max_heads, OUTPUT_ROWS_DEPTH // beats), most)
        if max_rows < config.max_heads:
            raise ValueError(f"max_rows is {max_rows}: make it at least {config.max_heads}")
        ar = config.attention_rows
        return cls(config, -(-max_rows // ar) * ar)

    @property
    def dims(self) -> int:
        return self.config.attention_dims

    @property
    def rows(self) -> int:
        return self.config.attention_rows

    @property
    def groups(self) -> int:
        """Row groups on chip."""
        return self.max_rows // self.rows

    @property
    def beats(self) -> int:
        """Words of the longest head."""
        return self.config.max_head_dim // self.dims

    @property
    def word_bits(self) -> int:
        """A word of int16 codes."""
        return 16 * self.dims

    @property
    def position_bits(self) -> int:
        return self.config.max_context.bit_length()

    @property
    def l_bits(self) -> int:
        """Bits of a denominator."""
        return 24 + self.config.max_context.bit_length()

    @property
    def o_bits(self) -> int:
        """Bits of an unnormalised output, signed."""
        return 22 + 15 + self.config.max_context.bit_length() + 1

    @property
    def parts(self) -> int:
        """Elementwise words of a code word."""
        return self.dims // self.config.lanes

    @property
    def beat(self) -> Shape:
        return Shape.cast(range(max(self.beats, 2)))

    @property
    def group(self) -> Shape:
        return Shape.cast(range(max(self.groups, 2)))

    @property
    def row(self) -> Shape:
        return Shape.cast(range(max(self.max_rows, 2)))

    @property
    def token(self) -> Shape:
        return Shape.cast(range(max(self.config.chunk, 2)))

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

    def query_pass(self) -> data.StructLayout:
        """The query rows of one KV head that are on chip together."""
        return data.StructLayout(
            {
                "rows": Shape.cast(range(self.max_rows + 1)),
                "token": self.token,  # of row 0
                "newest": unsigned(self.position_bits),  # position of the last row
                "word": self.out_word,  # of row 0 in its row of outputs
                "last": unsigned(1),  # of the command
            }
        )

    def item(self) -> data.StructLayout:
        """A row group on a KV block."""
        ar = self.rows
        return data.StructLayout(
            {
                "group": self.group,
                "slot": Shape.cast(range(SLOTS)),
                "queries": unsigned(1),  # which half of the query buffer
                "last": Shape.cast(range(KV_BLOCK)),  # newest position that any row sees
                "limit": data.ArrayLayout(range(KV_BLOCK), ar),  # newest position of each row
                "active": unsigned(ar),  # rows that see a position of the block
                "first": unsigned(ar),  # rows whose first block this is
                "scale": data.ArrayLayout(unsigned(32), ar),  # of Q
                "opens": unsigned(1),  # first item of its pass
                "closes": unsigned(1),  # last item of its pass
                "frees": unsigned(1),  # last item on its block
            }
        )

    def state(self) -> data.StructLayout:
        """What a row keeps between blocks, besides its output."""
        return data.StructLayout(
            {
                "max_p": Shape(MAX_BITS, signed=True),
                "max_w": Shape(MAX_BITS, signed=True),
                "l": unsigned(self.l_bits),
            }
        )
