"""Stimulus of the attention tests: queries, a KV cache in DRAM, the command, the right answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from terntable.hw import isa
from terntable.hw.attention.reference import reference
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat
from terntable.hw.kv_records import pack_records


@dataclass(frozen=True)
class Case:
    """One ATTENTION command. `kind` names the data: see `_codes`."""

    heads_per_kv: int = 1
    kv_heads: int = 1
    head_dims: int = 8
    tokens: int = 1
    position: int = 0
    format: KvFormat = KvFormat.INT16
    kind: str = "random"
    seed: int = 0
    address: int = field(default=0, compare=False)


@dataclass
class Stimulus:
    case: Case
    q_codes: np.ndarray  # [tokens, heads, head_dims]
    q_scales: np.ndarray  # [tokens, heads]
    dram: np.ndarray  # bytes
    command: bytes
    expected: np.ndarray  # [tokens, heads * head_dims]


def _scales(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float):
    return np.exp2(rng.uniform(low, high, shape)).astype(np.float32)


def _codes(rng: np.random.Generator, shape: tuple[int, ...], kv: KvFormat = KvFormat.INT16):
    return rng.integers(-kv.code_max, kv.code_max + 1, shape)


def build(config: AcceleratorConfig, case: Case) -> Stimulus:
    """Data of a case, laid out as the configuration's ports want it."""
    rng = np.random.default_rng(case.seed)
    heads = case.heads_per_kv * case.kv_heads
    length = case.position + case.tokens
    q = _codes(rng, (case.tokens, heads, case.head_dims))
    kv, most = case.format, case.format.code_max
    k = _codes(rng, (case.kv_heads, length, case.head_dims), kv)
    v = _codes(rng, (case.kv_heads, length, case.head_dims), kv)
    # Scores within some tens for random data: codes are near 2**15, or the format's largest.
    narrow = 16 - kv.bits
    q_scales = _scales(rng, q.shape[:2], -15, -13)
    k_scales = _scales(rng, k.shape[:2], narrow - 15, narrow - 13)
    v_scales = _scales(rng, k.shape[:2], narrow - 20, narrow - 14)
    match case.kind:
        case "random":
            pass
        case "equal":
            k[:] = k[:, :1]
            k_scales[:] = k_scales[:, :1]
        case "steep":
            q_scales *= np.float32(64)
        case "flat":
            q_scales *= np.float32(2**-10)
        case "clamped":
            q_scales *= np.float32(2**30)
        case "huge":
            k_scales[:, length // 2] *= np.float32(2**8)
        case "zero_q":  # all scores are 0
            q[:] = 0
            q_scales[:] = np.float32(2.0**-115)
        case "zero_k":
            k[:] = 0
            k_scales[:] = np.float32(2.0**-115)
        case "zero_v":
            v[:] = 0
            v_scales[:] = np.float32(2.0**-115)
        case "largest":
            q[:], k[:], v[:] = 32767, -most, most
            k_scales[:], v_scales[:] = np.float32(2**-15), np.float32(3e38)
        case "least":
            q[:], k[:], v[:] = -32767, most, -most
            k_scales[:], v_scales[:] = np.float32(3e38), np.float32(3e38)
        case "wide_v":
            v_scales[:] = _scales(rng, v_scales.shape, -115, 100)
        case "foreign":  # scales that the contract does not allow
            odd = np.array([0, 1, 0x00800000, 0x7F800000, 0x7FC00000, 0x3F800000], np.uint32)
            v_scales[:] = rng.choice(odd, v_scales.shape).view(np.float32)
        case "foreign_k":
            odd = np.array([0, 0x807FFFFF, 0x80800000, 0xFF800000, 0x7F800001], np.uint32)
            some = rng.random(k_scales.shape) < 0.3
            k_scales[some] = rng.choice(odd, some.sum()).view(np.float32)
        case _:
            raise ValueError(case.kind)

    ports, record = config.ports, config.record_bytes(case.head_dims, kv.bits)
    slots = -(-length // ports) + 1
    head_stride = slots * record
    port_stride = head_stride * case.kv_heads + 64 * config.bus_bytes
    dram = rng.integers(0, 256, ports * port_stride + case.address, np.uint8)
    packed = pack_records(config, kv, (k, k_scales), (v, v_scales), record)
    for h in range(case.kv_heads):
        for at in range(length):
            start = case.address + at % ports * port_stride + h * head_stride + at // ports * record
            dram[start : start + record] = packed[h, at]
    command = isa.encode(
        isa.Op.ATTENTION,
        format=kv,
        heads_per_kv=case.heads_per_kv,
        kv_heads=case.kv_heads,
        head_dims=case.head_dims,
        address=case.address,
        head_stride=head_stride,
        port_stride=port_stride,
        record_bytes=record,
    )
    expected = reference(q, q_scales, k, k_scales, v, v_scales, case.position)
    return Stimulus(case, q, q_scales, dram, command, expected)
