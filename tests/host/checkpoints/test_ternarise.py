"""Trits and scales of values that are ternary already."""

from __future__ import annotations

import numpy as np

from terntable.host.checkpoints.ternarise import ReadPart, from_values


def read(values: np.ndarray) -> ReadPart:
    return lambda first, count: values.reshape(-1)[first : first + count]


def test_values_in_equal_blocks() -> None:
    """Blocks of rows or columns with a scale each, as few as explain the values."""
    rng = np.random.default_rng(0)
    trits = rng.integers(-1, 2, (12, 6)).astype(np.int8)

    for dtype in (np.float32, np.float16):
        for scales in ([0.5], [0.3, 0.7], [1e-5, 3.0, 0.25], [1, 2, 3, 4, 5, 6]):
            rows = np.repeat(scales, 12 // len(scales))[:, None]
            linear = from_values(read((trits * rows).astype(dtype)), 12, 6)
            assert np.array_equal(linear.trits, trits) and linear.column_scale is None
            assert np.array_equal(linear.row_scales, np.array(scales, dtype).astype(np.float32))
            turned = np.ascontiguousarray((trits * rows).astype(dtype).T)
            linear = from_values(read(turned), 6, 12)
            assert np.array_equal(linear.dense(), turned.astype(np.float32))
    # bfloat16: 0.5 and -0.5 and -0
    bits = np.array([[0x3F00, 0xBF00, 0x8000, 0]], np.uint16)
    linear = from_values(read(bits), 1, 4)
    assert linear.trits.tolist() == [[1, -1, 0, 0]] and linear.scale == 0.5
    # A shard of zeros gets a neighbour's scale; heads of two rows stay whole.
    values = np.repeat(np.array([[1.0], [0], [2]], np.float32), 2, axis=0) * np.ones((6, 4))
    values = values.astype(np.float32)
    assert from_values(read(values), 6, 4).row_scales.tolist() == [1, 2]
    assert from_values(read(values), 6, 4, 2).row_scales.tolist() == [1, 1, 2]
    linear = from_values(read(np.zeros((6, 4), np.float32)), 6, 4)
    assert not linear.trits.any() and linear.scale == 1
