"""The LM head's balanced-ternary planes."""

from __future__ import annotations

import numpy as np
import pytest

from terntable.host.head import combine_planes, head_max, plane_digits, quantise_head
from terntable.hw import isa


@pytest.mark.parametrize("planes", isa.PLANES)
def test_planes_of_every_code(planes: int) -> None:
    most = head_max(planes)
    codes = np.arange(-most, most + 1, dtype=np.int8)[:, None]
    digits = plane_digits(codes, planes)
    assert digits.shape == (planes * len(codes), 1) and digits.max() == 2
    trits = digits.astype(np.int64).reshape(-1, planes) - 1
    assert np.array_equal(trits @ 3 ** np.arange(planes - 1, -1, -1), codes[:, 0])
    assert np.array_equal(combine_planes(digits.view(np.int8) - 1, planes), codes)


@pytest.mark.parametrize(("planes", "most"), [(5, 121), (4, 40)])
def test_rounding_is_within_half_a_step(planes: int, most: int) -> None:
    rng = np.random.default_rng(2)
    head = rng.standard_normal((5000, 32)).astype(np.float32)
    head[7] = 0
    q = quantise_head(head, planes)
    back = q.codes * q.scales[:, None].astype(np.float64)
    assert np.all(np.abs(back - head) <= 0.5001 * q.scales[:, None])
    assert np.all(np.abs(q.codes).max(axis=1)[np.arange(5000) != 7] == most)
    assert not q.codes[7].any()
    measured = np.sqrt(np.mean((back - head) ** 2) / np.mean(head.astype(np.float64) ** 2))
    assert abs(q.error - measured) < 1e-9 and 0.1 < q.error * most < 1


def test_bfloat16_bits_are_read() -> None:
    rng = np.random.default_rng(3)
    bits = (rng.standard_normal((9, 8)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    a, b = quantise_head(bits), quantise_head(wide)
    assert np.array_equal(a.codes, b.codes) and np.array_equal(a.scales, b.scales)
