"""Prefill and decode attention over both kinds of cache, against PyTorch over the same numbers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.devices.triton import KV_KINDS  # noqa: E402
from terntable.host.kernels.decode_attention import decode_attention  # noqa: E402
from terntable.host.kernels.kv_cache import KvCache, kv_caches  # noqa: E402
from terntable.host.kernels.prefill_attention import prefill_attention  # noqa: E402
from terntable.host.reference.operations import attention  # noqa: E402

TOLERANCE = 1e-4
POSITIONS = 300
SHAPES = [(5, 1, 44), (4, 4, 64), (10, 2, 96)]


def filled(kv_heads: int, head_dim: int, kind: str, end: int, place: torch.device) -> KvCache:
    """A cache of random numbers up to position `end`; nothing behind may be read, so that is NaN
    or, in codes, has scales NaN."""
    cache = kv_caches(1, kv_heads, POSITIONS, head_dim, kind, place)[0]
    for numbers, scales in ((cache.k, cache.k_scale), (cache.v, cache.v_scale)):
        shape = (kv_heads, POSITIONS, head_dim)
        if kind == "int8":
            numbers[..., :head_dim] = torch.randint(-127, 128, shape).to(place)
            scales.copy_(torch.rand(kv_heads, POSITIONS) / 64)
            scales[:, end:] = torch.nan
        else:
            numbers[..., :head_dim] = torch.randn(shape).to(place)
            numbers[:, end:] = torch.nan
    return cache


def expected(q: torch.Tensor, cache: KvCache, position: int) -> torch.Tensor:
    """Outputs [tokens, heads, head_dim] of PyTorch on what the cache holds."""
    k, v = (x.cpu()[:, : position + len(q)] for x in cache.dense(q.shape[2]))
    return attention(q.transpose(0, 1), k, v, position).transpose(0, 1)


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize(("tokens", "position"), [(2, 0), (17, 5), (34, 31), (3, 63), (40, 250)])
def test_prefill(
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    position: int,
    kind: str,
    place: torch.device,
    relative,
) -> None:
    torch.manual_seed(position + head_dim)
    cache = filled(kv_heads, head_dim, kind, position + tokens, place)
    q = 2 * torch.randn(tokens, heads, head_dim)
    out = prefill_attention(q.to(place), cache, position)
    assert relative(out, expected(q, cache, position)) < TOLERANCE


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
@pytest.mark.parametrize("position", [0, 1, 63, 128, 299])
def test_decode(
    heads: int,
    kv_heads: int,
    head_dim: int,
    position: int,
    kind: str,
    place: torch.device,
    relative,
) -> None:
    torch.manual_seed(position + head_dim)
    cache = filled(kv_heads, head_dim, kind, position + 1, place)
    q = 2 * torch.randn(1, heads, head_dim)
    out = decode_attention(q.to(place), cache, position)
    assert relative(out, expected(q, cache, position)) < TOLERANCE


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_extreme_scores(kind: str, tokens: int, place: torch.device, relative) -> None:
    """Queries of zeros see the mean; huge ones see one position; values of zeros give zeros."""
    torch.manual_seed(tokens)
    cache = filled(2, 44, kind, 150 + tokens, place)
    attend = decode_attention if tokens == 1 else prefill_attention
    q = torch.zeros(tokens, 4, 44)
    q[:, 1] = 1e5 * torch.randn(tokens, 44)
    q[:, 2] = 1e-30
    out = attend(q.to(place), cache, 150)
    assert relative(out, expected(q, cache, 150)) < TOLERANCE
    cache.v.zero_()
    assert not attend(q.to(place), cache, 150).any()


@pytest.mark.parametrize("tokens", [1, 3])
def test_scales_of_values_far_apart(tokens: int, place: torch.device, relative) -> None:
    torch.manual_seed(tokens)
    cache = filled(1, 64, "int8", 130 + tokens, place)
    cache.v_scale.copy_(10.0 ** torch.randint(-9, 6, cache.v_scale.shape))
    q = torch.randn(tokens, 2, 64)
    attend = decode_attention if tokens == 1 else prefill_attention
    assert relative(attend(q.to(place), cache, 130), expected(q, cache, 130)) < TOLERANCE
