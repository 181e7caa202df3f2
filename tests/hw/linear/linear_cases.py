"""Random LINEAR commands with the beats that the engine must give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.linear import engine, trits, unpack


def config_with(name: str = "test", **changes: object) -> AcceleratorConfig:
    """A named configuration with other values for some fields."""
    return AcceleratorConfig.model_validate(load_config(name).model_dump() | changes)


@dataclass(frozen=True)
class Case:
    """A LINEAR command: n rows by k inputs for the tokens of a chunk. With `extreme` all codes are
    that number, and rows of weights are all 1, all -1 and all 0 in turn."""

    tokens: int
    n: int
    k: int
    tile_words: int
    head: bool = False
    seed: int = 1
    first_row: int = 0
    extreme: int | None = None


Beat = tuple[int, int, tuple[int, ...]]  # token, word, sums


class Problem:
    """Stimulus and expected beats of a case."""

    def __init__(self, c: AcceleratorConfig, case: Case) -> None:
        rng = np.random.default_rng(case.seed)
        self.k_tiles = c.k_tiles(case.k)
        self.rows = c.head_digits if case.head else case.tokens
        words = -(-case.n // c.rows)
        digits = rng.integers(0, 3, (case.n, case.k))
        if case.extreme is not None:
            digits[:] = np.resize([2, 0, 1], case.n)[:, None]
        order = trits.order_digits(digits, case.tile_words, c.rows, c.tile_inputs)
        self.weights = unpack.reference(trits.encode_bytes(order), words * self.k_tiles, c)
        self.codes = np.zeros((c.chunk, self.k_tiles * c.tile_inputs), np.int8)
        self.codes[: self.rows, : case.k] = rng.integers(-128, 128, (self.rows, case.k))
        self.codes[0, :4] = -128
        if case.extreme is not None:
            self.codes[: self.rows, : case.k] = case.extreme
        sums = engine.reference(self.codes[: self.rows], order, c, case.tile_words)
        direct = self.codes[: self.rows, : case.k].astype(int) @ (digits - 1).T
        assert (sums[:, : case.n] == direct).all()

        tiles = -(-words // case.tile_words)
        values = {f.name: 0 for f in isa.FIELDS[isa.Op.LINEAR]} | {
            "mode": isa.Mode.HEAD if case.head else isa.Mode.PLAIN,
            "single": int(case.head),
            "k_tiles": self.k_tiles,
            "tile_words": case.tile_words,
            "tiles": tiles,
            "last_words": words - (tiles - 1) * case.tile_words,
            "out_rows": case.n,
            "first_row": case.first_row,
        }
        self.command = isa.encode(isa.Op.LINEAR, **values)
        self.beats: list[Beat] = []
        self.array_cycles = 0
        for first in range(0, words, case.tile_words):
            in_tile = range(first, min(first + case.tile_words, words))
            for group in range(0, self.rows, c.tokens):
                self.array_cycles += self.k_tiles * (c.gap_cycles + len(in_tile))
                lanes = range(group, min(group + c.tokens, self.rows))
                for word in in_tile:
                    self.beats += self._word(c, case, sums, word, lanes)

    def _word(
        self, c: AcceleratorConfig, case: Case, sums: np.ndarray, word: int, lanes: range
    ) -> list[Beat]:
        rows = range(word * c.rows, (word + 1) * c.rows)
        if case.head:
            pad = (0,) * (c.lanes - c.head_digits)
            return [
                (0, row // c.lanes, tuple(map(int, sums[:, row])) + pad)
                for row in rows
                if row < case.n
            ]
        return [
            (
                token,
                (case.first_row + row) // c.lanes,
                tuple(map(int, sums[token, row : row + c.lanes])),
            )
            for token in lanes
            for row in rows[:: c.lanes]
            if row < case.n
        ]

    def activations(self, c: AcceleratorConfig, row: int, word: int) -> int:
        """A word of the A8 row memory."""
        part = self.codes[row, word * c.tile_inputs : (word + 1) * c.tile_inputs]
        return int.from_bytes(part.tobytes(), "little")

    def payload(self, case: Case) -> int:
        """The command as the unit receives it (interfaces.command_layout)."""
        return int.from_bytes(self.command, "little") | case.tokens << (512 + 16 + 32)


def beat_of(c: AcceleratorConfig, payload: int) -> Beat:
    """A beat from its bits."""
    bits = (max(c.chunk, 2) - 1).bit_length()
    token, word = payload & ((1 << bits) - 1), payload >> bits & 0xFFFF
    sums = []
    for e in range(c.lanes):
        value = payload >> (bits + 16 + e * c.acc_bits) & ((1 << c.acc_bits) - 1)
        sums.append(value - (value >> (c.acc_bits - 1) << c.acc_bits))
    return token, word, tuple(sums)
