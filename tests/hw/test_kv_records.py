"""The layout of KV records."""

from __future__ import annotations

import numpy as np
import pytest

from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.isa import KvFormat
from terntable.hw.kv_records import pack_codes, pack_records, unpack_codes, unpack_records


def test_codes_are_packed_from_the_least_significant_bit_on() -> None:
    codes = np.array([1, -2, 7, -7])
    assert pack_codes(codes, KvFormat.INT4).tolist() == [0xE1, 0x97]
    assert pack_codes(codes, KvFormat.INT8).tolist() == [1, 0xFE, 7, 0xF9]
    assert pack_codes(codes, KvFormat.INT16).tolist() == [1, 0, 0xFE, 0xFF, 7, 0, 0xF9, 0xFF]


@pytest.mark.parametrize("kv", KvFormat)
def test_every_code_comes_back(kv: KvFormat) -> None:
    codes = np.arange(-kv.code_max - 1, kv.code_max + 1).reshape(2, -1)
    np.testing.assert_array_equal(unpack_codes(pack_codes(codes, kv), kv), codes)


@pytest.mark.parametrize("bus_bits", [32, 128, 256])
@pytest.mark.parametrize("head_dim", [4, 12, 20])
@pytest.mark.parametrize("kv", KvFormat)
def test_records(kv: KvFormat, head_dim: int, bus_bits: int) -> None:
    fields = load_config("test").model_dump() | {"bus_bits": bus_bits}
    config = AcceleratorConfig.model_validate(fields)
    rng = np.random.default_rng(head_dim)
    shape = (3, 2, head_dim)
    k, v = (rng.integers(-kv.code_max, kv.code_max + 1, shape) for _ in "kv")
    k_scales, v_scales = (rng.random(shape[:2]).astype(np.float32) for _ in "kv")
    size = config.record_bytes(head_dim, kv.bits) + config.bus_bytes
    records = pack_records(config, kv, (k, k_scales), (v, v_scales), size)
    assert records.shape == (3, 2, size)
    codes, scales = unpack_records(config, kv, records, head_dim)
    np.testing.assert_array_equal(codes[:, :, 0], k)
    np.testing.assert_array_equal(codes[:, :, 1], v)
    np.testing.assert_array_equal(scales[..., 0], k_scales.view(np.uint32))
    np.testing.assert_array_equal(scales[..., 1], v_scales.view(np.uint32))
    # Nothing but codes and scales.
    at, end = config.scales_offset(head_dim, kv.bits), head_dim * kv.bits // 4
    assert not records[..., end:at].any() and not records[..., at + 8 :].any()
