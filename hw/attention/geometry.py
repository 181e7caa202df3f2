"""Sizes of the attention unit, and the cycles that it takes: what needs no hardware description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ..config import KV_BLOCK, AcceleratorConfig

OUTPUT_WORDS = 512
"""Words of the memory of unnormalised outputs: the depth of a wide block memory."""
SLOT_WORDS = 512
"""Words of a bank of K or V that come for free: the depth of a wide block memory."""
ITEMS = 8
"""Items in work, from the description to the last output."""
BUFFERED = 4
"""Items whose dot products, or weights, are on chip at once."""
LEAST_DOT_PERIOD = 4
"""Cycles before a partial dot product is added to again."""
LEAST_SUM_PERIOD = 8
"""Cycles before a word of outputs may be added to again."""
DIVISION_CYCLES = 32
"""Cycles that a divider is left alone for."""

_Geometry = TypeVar("_Geometry", bound="AttentionGeometry")


@dataclass(frozen=True)
class AttentionGeometry:
    """Parameters derived from a configuration.

    Of `attention_rows` * `attention_dims` multipliers half make dot products and half make sums.
    Either half takes `rows` query rows on `positions` positions, one a memory port, `dims`
    dimensions a cycle.
    """

    config: AcceleratorConfig
    max_rows: int
    """Query rows (token, query head of one KV head) that keep their state on chip."""

    @classmethod
    def of(
        cls: type[_Geometry], config: AcceleratorConfig, max_rows: int | None = None
    ) -> _Geometry:
        """`max_rows` defaults to what fills the output memory, and is rounded up to whole tiles.

        Raises ValueError when the query heads of one token would not fit.
        """
        words = config.max_head_dim // config.lanes
        if max_rows is None:
            most = config.chunk * config.max_heads
            max_rows = min(max(config.max_heads, OUTPUT_WORDS // words), most)
        if max_rows < config.max_heads:
            raise ValueError(f"max_rows is {max_rows}: make it at least {config.max_heads}")
        rows = -(-config.attention_rows // config.ports)
        return cls(config, -(-max_rows // rows) * rows)

    @property
    def positions(self) -> int:
        """Positions multiplied in a cycle."""
        return self.config.ports

    @property
    def rows(self) -> int:
        """Query rows of a tile, which are multiplied together."""
        return -(-self.config.attention_rows // self.config.ports)

    @property
    def dims(self) -> int:
        """Dimensions of a word of K, V or Q."""
        return max(self.config.attention_dims // 2, self.config.lanes)

    @property
    def steps(self) -> int:
        """Steps of `positions` positions in a block."""
        return KV_BLOCK // self.positions

    @property
    def slots_a_row(self) -> int:
        """Cycles in which the scores of a row on a block become weights."""
        return KV_BLOCK // self.config.attention_pipes

    @property
    def tiles(self) -> int:
        """Tiles whose state is on chip."""
        return self.max_rows // self.rows

    @property
    def beats(self) -> int:
        """Words of the longest head."""
        return self.config.max_head_dim // self.dims

    @property
    def parts(self) -> int:
        """Words of outputs in a word of V."""
        return self.dims // self.config.lanes

    @property
    def slots(self) -> int:
        """KV blocks on chip: some in use, the others loading ahead. A power of two."""
        words = self.steps << (self.beats - 1).bit_length()
        return min(ITEMS, max(4, 1 << (SLOT_WORDS // words).bit_length() >> 1))

    @property
    def least_sum_period(self) -> int:
        """Cycles in which the sums of one word of V are taken over."""
        return max(LEAST_SUM_PERIOD, self.rows * self.parts)

    @property
    def dividers(self) -> int:
        return min(self.rows, self.config.attention_pipes)

    @property
    def closing_period(self) -> int:
        """Cycles between two tiles that end, for their divisions not to meet in a divider."""
        softmax = self.rows * self.slots_a_row
        alone = self.rows % self.config.attention_pipes == 0
        return softmax if alone else softmax + DIVISION_CYCLES

    def stage_cycles(self, head_dims: int, positions: int) -> tuple[int, int, int]:
        """Cycles that dot products, softmax and sums take over an item: a tile on the first
        `positions` of a block."""
        steps = -(-positions // self.positions)
        beats = head_dims // self.dims
        return (
            1 + beats * max(steps, self.rows, LEAST_DOT_PERIOD),
            1 + self.rows * self.slots_a_row,
            1 + beats * max(steps, self.least_sum_period),
        )
