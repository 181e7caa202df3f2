"""Weight streams: order, ports, density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terntable.host.packing import StreamPacker, WordStream, matrix_from_words, plan_tiles
from terntable.hw.config import AcceleratorConfig, load_config

TEST = load_config("test").model_dump()


def config(**changes: object) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(TEST | changes)


CONFIGS = [
    config(),
    config(group=2, tables=3, rows=4, tile_rows=16, ports=1, bus_bits=64),
    config(group=4, tables=5, rows=6, tile_rows=12, ports=4, bus_bits=128, weight_depth=1024),
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CONFIGS),
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_round_trip(config: AcceleratorConfig, shapes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    packer = StreamPacker(config)
    matrices = [rng.integers(-1, 2, shape, np.int8) for shape in shapes]
    plans = [plan_tiles(config, *m.shape) for m in matrices]
    for matrix, plan in zip(matrices, plans, strict=True):
        packer.append((matrix + 1).astype(np.uint8), plan)
    stream = packer.finish()
    assert stream.data.shape == (config.ports, stream.beats * config.bus_bytes)
    words = WordStream(config, stream.data, stream.words)
    for matrix, plan in zip(matrices, plans, strict=True):
        back = matrix_from_words(words.take(plan.words), plan)
        rows, columns = matrix.shape
        assert np.array_equal(back[:rows, :columns], matrix)
        assert not back[rows:].any() and not back[:, columns:].any()
    assert words.left == 0


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"G{c.group}")
def test_each_trit_lies_where_the_stream_order_says(config: AcceleratorConfig) -> None:
    """Against the definition, one trit at a time."""
    rng = np.random.default_rng(1)
    rows, inputs = 3 * config.tile_rows - config.rows + 1, 2 * config.tile_inputs - 1
    matrix = rng.integers(-1, 2, (rows, inputs), np.int8)
    plan = plan_tiles(config, rows, inputs)
    packer = StreamPacker(config)
    packer.append((matrix + 1).astype(np.uint8), plan)
    stream = packer.finish()
    trits = WordStream(config, stream.data, stream.words).take(stream.words).reshape(-1)
    at = 0
    for tile in range(plan.tiles):
        base = tile * plan.tile_words * config.rows
        size = plan.tile_words if tile + 1 < plan.tiles else plan.last_words
        for k_tile in range(plan.k_tiles):
            for w in range(size):
                for q in range(config.rows):
                    for i in range(config.tile_inputs):
                        row, k = base + w * config.rows + q, k_tile * config.tile_inputs + i
                        inside = row < rows and k < inputs
                        assert trits[at] == (matrix[row, k] if inside else 0)
                        at += 1
    assert at == trits.size


def test_plans_fit_accumulators_and_half_the_ring() -> None:
    for config in CONFIGS:
        for rows in (1, 63, 64, 65, 1000):
            for inputs in (1, 47, 128):
                plan = plan_tiles(config, rows, inputs)
                assert plan.tile_words * config.rows <= config.tile_rows
                assert plan.tile_words * plan.k_tiles <= config.weight_depth // 2
                assert 1 <= plan.last_words <= plan.tile_words
                covered = (plan.tile_words * (plan.tiles - 1) + plan.last_words) * config.rows
                assert rows <= covered < rows + config.rows


def test_large_matrices_take_less_than_1_62_bits_a_weight() -> None:
    config = load_config("tiny")
    rows, inputs = 2560, 6912
    packer = StreamPacker(config)
    packer.append(np.ones((rows, inputs), np.uint8), plan_tiles(config, rows, inputs))
    assert packer.finish().data.size * 8 / (rows * inputs) < 1.62
