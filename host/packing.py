"""Weights in exactly the order and place in which the engine reads them.

A matrix is cut into tiles of whole weight words; the trits of all matrices of a FETCH follow one
another without gaps, five to a byte, and the bytes of a beat are spread over the memory ports.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.hw.config import AcceleratorConfig
from terntable.hw.linear import trits


@dataclass(frozen=True)
class TilePlan:
    """How a matrix [rows, inputs] is cut. Words are per K tile."""

    k_tiles: int
    tile_words: int
    tiles: int
    last_words: int

    @property
    def words(self) -> int:
        """Weight words of the whole matrix."""
        return self.k_tiles * (self.tile_words * (self.tiles - 1) + self.last_words)


@functools.lru_cache(maxsize=1024)
def plan_tiles(config: AcceleratorConfig, rows: int, inputs: int, norm_ew: int = 0) -> TilePlan:
    """Tiles that take a prefill chunk the least time.

    A tile has at most the accumulators' rows and half the weight ring's words, so that one is
    filled while the other is read. A tile costs table builds for each K tile and group of tokens;
    the drain of the last one is not hidden, nor is what a norm that follows row by row (rows of
    `norm_ew` elementwise words, 0 without one) takes longer for a group than the last tile's sweep.
    """
    c = config
    k_tiles = c.k_tiles(inputs)
    words = -(-rows // c.rows)
    most = min(c.tile_rows // c.rows, c.weight_depth // 2 // k_tiles, words)
    groups = -(-c.chunk // c.tokens)
    drain = c.tokens * c.rows // c.lanes  # cycles a word

    def plan(tile_words: int) -> TilePlan:
        tiles = -(-words // tile_words)
        return TilePlan(k_tiles, tile_words, tiles, words - (tiles - 1) * tile_words)

    def gap(words: int) -> int:
        # A build that hides behind a sweep may be longer than that.
        hidden = c.build_cycles + c.tokens + 4 - words if c.table_buffers == 2 else 0
        return max(c.gap_cycles, hidden)

    def cost(plan: TilePlan) -> tuple[int, int]:
        sweep = k_tiles * (gap(plan.last_words) + plan.last_words)
        builds = groups * k_tiles * ((plan.tiles - 1) * gap(plan.tile_words) + gap(plan.last_words))
        exposed = max(0, c.tokens * norm_ew - sweep)
        return builds + plan.last_words * drain + exposed, plan.tile_words

    return min((plan(n) for n in range(max(1, most // 2), most + 1)), key=cost)


@dataclass(frozen=True)
class PackedStream:
    """Bytes [ports, beats * bus_bytes] of a FETCH and its descriptor."""

    data: NDArray[np.uint8]
    beats: int
    words: int


class StreamPacker:
    """Collects matrices into one stream."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._beat_digits = config.beat_bytes * trits.TRITS_PER_BYTE
        self._rest = np.zeros(0, np.uint8)
        self._bytes: list[NDArray[np.uint8]] = []
        self._words = 0

    def append(self, digits: NDArray[np.uint8], plan: TilePlan) -> None:
        """Add a matrix of digits 0..2 [rows, inputs]."""
        config = self.config
        ordered = trits.order_digits(digits, plan.tile_words, config.rows, config.tile_inputs)
        if ordered.size != plan.words * config.word_trits:
            raise ValueError(f"{ordered.size} digits do not fill the plan's {plan.words} words")
        stream = np.concatenate([self._rest, ordered])
        whole = stream.size - stream.size % self._beat_digits
        self._bytes.append(trits.encode_bytes(stream[:whole]))
        self._rest = stream[whole:]
        self._words += plan.words

    def finish(self) -> PackedStream:
        """Pad to whole beats and spread the bytes over the ports."""
        config = self.config
        pad = -self._rest.size % self._beat_digits
        last = np.concatenate([self._rest, np.full(pad, trits.UNUSED_DIGIT, np.uint8)])
        joined = np.concatenate([*self._bytes, trits.encode_bytes(last)])
        beats = joined.size // config.beat_bytes
        data = joined.reshape(beats, config.ports, config.bus_bytes).transpose(1, 0, 2)
        return PackedStream(
            np.ascontiguousarray(data).reshape(config.ports, -1), beats, self._words
        )


class WordStream:
    """Takes weight words off a stream's bytes [ports, beats * bus_bytes], in order.

    They are unpacked when they are taken: the trits of a large model need five times the memory.
    """

    def __init__(self, config: AcceleratorConfig, ports: NDArray[np.uint8], words: int) -> None:
        self._config = config
        joined = ports.reshape(config.ports, -1, config.bus_bytes).transpose(1, 0, 2)
        self._bytes = joined.reshape(-1)
        self._taken = 0
        self._words = words

    @property
    def left(self) -> int:
        """Words that were not taken yet."""
        return self._words - self._taken

    def take(self, words: int) -> NDArray[np.int8]:
        """Trits [words, rows, tile_inputs] of the next words, of which there must be as many."""
        c = self._config
        first, size = self._taken * c.word_trits, words * c.word_trits
        begin, skip = divmod(first, trits.TRITS_PER_BYTE)
        end = -(-(first + size) // trits.TRITS_PER_BYTE)
        digits = trits.decode_bytes(self._bytes[begin:end])[skip : skip + size]
        self._taken += words
        return (digits.view(np.int8) - np.int8(1)).reshape(words, c.rows, c.tile_inputs)


def matrix_from_words(words: NDArray[np.int8], plan: TilePlan) -> NDArray[np.int8]:
    """The matrix [rows, k_tiles * tile_inputs] of weight words in stream order."""
    _, q, inputs = words.shape
    full = (plan.tiles - 1) * plan.k_tiles * plan.tile_words
    parts = []
    for part, size in ((words[:full], plan.tile_words), (words[full:], plan.last_words)):
        tiled = part.reshape(-1, plan.k_tiles, size, q, inputs).transpose(0, 2, 3, 1, 4)
        parts.append(tiled.reshape(-1, plan.k_tiles * inputs))
    return np.concatenate(parts)
