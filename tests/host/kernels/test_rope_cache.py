"""Rotation of Q and K and the KV cache's number formats."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.devices.triton import KV_KINDS  # noqa: E402
from terntable.host.kernels.kv_cache import KvCache, kv_caches  # noqa: E402
from terntable.host.kernels.rope_cache import rope_cache  # noqa: E402
from terntable.host.reference.operations import rope_tables, rotate  # noqa: E402

TOLERANCE = 1e-4
POSITIONS = 80


def written(
    qkv: torch.Tensor, heads: int, kv_heads: int, head_dim: int, kind: str, position: int
) -> tuple[torch.Tensor, KvCache]:
    """q and the cache after the kernel has taken rows qkv."""
    place = qkv.device
    cache = kv_caches(1, kv_heads, POSITIONS, head_dim, kind, place)[0]
    tables = rope_tables(0, POSITIONS, head_dim, 1e4)
    cosine, sine = (t[:, : head_dim // 2].contiguous().to(place) for t in tables)
    q = torch.empty(len(qkv), heads, head_dim, device=place)
    rope_cache(qkv, cosine, sine, q, cache, position)
    return q.cpu(), cache


def in_int8(x: torch.Tensor) -> torch.Tensor:
    """x [..., head_dim] by int8 codes with a scale a head."""
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    return (x * scale).round() / scale


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(5, 1, 44), (4, 4, 64), (10, 2, 96)])
@pytest.mark.parametrize(("tokens", "position"), [(1, 0), (2, 31), (17, 62)])
def test_rotated_and_stored(
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    position: int,
    kind: str,
    place: torch.device,
    relative,
) -> None:
    torch.manual_seed(head_dim + tokens)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim)
    q, cache = written(qkv.to(place), heads, kv_heads, head_dim, kind, position)
    split = qkv.view(tokens, -1, head_dim).transpose(0, 1)
    tables = rope_tables(position, tokens, head_dim, 1e4)
    expected_q = rotate(split[:heads], *tables)
    expected_k = rotate(split[heads : heads + kv_heads], *tables)
    expected_v = split[heads + kv_heads :]
    assert relative(q.transpose(0, 1), expected_q) < TOLERANCE
    stored = in_int8 if kind == "int8" else lambda x: x.half().float()
    end = position + tokens
    for kept, expected in zip(cache.dense(head_dim), (expected_k, expected_v), strict=True):
        kept = kept.cpu()
        assert relative(kept[:, position:end], stored(expected)) < TOLERANCE
        assert not kept[:, :position].any() and not kept[:, end:].any()


@pytest.mark.parametrize("kind", KV_KINDS)
def test_extremes(kind: str, place: torch.device) -> None:
    """A token of zeros, one of single large numbers, one beyond binary16."""
    qkv = torch.zeros(3, 3 * 44)
    qkv[1, 50], qkv[1, 100] = -127, 127
    qkv[2] = 1e6
    _, cache = written(qkv.to(place), 1, 1, 44, kind, 0)
    k, v = (x.cpu() for x in cache.dense(44))
    assert not k[0, 0].any() and not v[0, 0].any()
    assert v[0, 1, 12] == 127 and v[0, 1].count_nonzero() == 1
    assert torch.isfinite(k).all()
    if kind == "int8":
        assert torch.allclose(v[0, 2], torch.tensor(1e6))
    else:
        assert (v[0, 2] == 65504).all()
