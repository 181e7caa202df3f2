"""The layout of KV records, the cache's entries of one token and KV head, in NumPy.

A record is the codes of K, then those of V, packed without gaps from the least significant bit of
a byte on; zeros up to `AcceleratorConfig.scales_offset`; the scales of K and V, binary32; zeros up
to whole bus words. The gateware's record writer and unpacker are tested to equal it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .config import SCALES_BYTES, AcceleratorConfig
from .isa import KvFormat
from .numeric import F32, I64

Bytes = NDArray[np.uint8]


def pack_codes(codes: I64, kv: KvFormat) -> Bytes:
    """Codes [..., n] as bytes [..., n * bits / 8]; n * bits is a multiple of 8."""
    if kv.bits < 8:
        nibbles = (codes & 15).astype(np.uint8)
        return nibbles[..., 0::2] | nibbles[..., 1::2] << np.uint8(4)
    wide: Bytes = np.ascontiguousarray(codes.astype(f"<i{kv.bits // 8}")).view(np.uint8)
    return wide


def unpack_codes(packed: Bytes, kv: KvFormat) -> NDArray[np.integer]:
    """Codes [..., n], signed, of bytes [..., n * bits / 8]."""
    packed = np.ascontiguousarray(packed)
    if kv.bits < 8:
        pair = np.stack([packed << 4, packed], axis=-1).view(np.int8)
        return (pair >> 4).reshape(*packed.shape[:-1], -1)
    return packed.view(f"<i{kv.bits // 8}")


def pack_records(
    config: AcceleratorConfig,
    kv: KvFormat,
    k: tuple[I64, F32],
    v: tuple[I64, F32],
    record_bytes: int,
) -> Bytes:
    """Records [..., record_bytes] of codes [..., head_dim] and scales [...] of K and V."""
    (k_codes, k_scales), (v_codes, v_scales) = k, v
    at = config.scales_offset(k_codes.shape[-1], kv.bits)
    records = np.zeros((*k_scales.shape, record_bytes), np.uint8)
    codes = pack_codes(np.concatenate([k_codes, v_codes], axis=-1), kv)
    records[..., : codes.shape[-1]] = codes
    scales = np.stack([k_scales, v_scales], axis=-1).astype("<f4")
    records[..., at : at + SCALES_BYTES] = scales.view(np.uint8)
    return records


def unpack_records(
    config: AcceleratorConfig, kv: KvFormat, records: Bytes, head_dim: int
) -> tuple[NDArray[np.integer], NDArray[np.uint32]]:
    """Codes of K and V [..., 2, head_dim] and their scales' words [..., 2] of records [..., n]."""
    at = config.scales_offset(head_dim, kv.bits)
    codes = unpack_codes(records[..., : head_dim * kv.bits // 4], kv)
    scales = np.ascontiguousarray(records[..., at : at + SCALES_BYTES]).view("<u4")
    return codes.reshape(*records.shape[:-1], 2, head_dim), scales
