"""Whatever blocks the tuning picks: the same integer sums, the same attention."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from terntable.host.devices.triton import KV_KINDS  # noqa: E402
from terntable.host.kernels import (  # noqa: E402
    decode_attention,
    head_matvec,
    prefill_attention,
    ternary_matmul,
)
from terntable.host.kernels.kv_cache import kv_caches  # noqa: E402
from terntable.host.kernels.norm_quant import norm_quant  # noqa: E402
from terntable.host.kernels.ternary import PackedMatrix  # noqa: E402
from terntable.host.model import TernaryLinear  # noqa: E402
from terntable.host.reference.operations import attention  # noqa: E402


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch):
    """Makes a tuned kernel take one configuration."""

    def choose(kernel, **blocks: int) -> None:
        config = triton.Config(blocks, num_warps=4, num_stages=2)
        monkeypatch.setattr(kernel, "configs", [config])

    return choose


@pytest.mark.parametrize("parts", [1, 2, 8])
@pytest.mark.parametrize(("rows", "size"), [(16, 64), (32, 128), (64, 32)])
def test_decode_products(parts: int, rows: int, size: int, place: torch.device, tune) -> None:
    blocks = {"BLOCK_ROWS": rows, "BLOCK_TOKENS": 16, "BLOCK_BYTES": size, "PARTS": parts}
    tune(ternary_matmul._decode, **blocks)
    check_product(3, place)


@pytest.mark.parametrize("tokens", [16, 64])
@pytest.mark.parametrize(("rows", "size"), [(32, 128), (128, 64)])
def test_prefill_products(tokens: int, rows: int, size: int, place: torch.device, tune) -> None:
    blocks = {"BLOCK_ROWS": rows, "BLOCK_TOKENS": tokens, "BLOCK_BYTES": size}
    tune(ternary_matmul._prefill, **blocks)
    check_product(35, place)


def check_product(tokens: int, place: torch.device) -> None:
    rng = np.random.default_rng(tokens)
    trits = rng.integers(-1, 2, (100, 500)).astype(np.int8)
    x = norm_quant(torch.from_numpy(rng.standard_normal((tokens, 500), np.float32)).to(place))
    matrix = PackedMatrix.of([TernaryLinear(trits, np.float32(1))], place)
    sums = ternary_matmul.ternary_matmul(x, matrix, sums=True).cpu().numpy()
    codes = x.codes.cpu().numpy()[:, :500].astype(np.int64)
    assert np.array_equal(sums, codes @ trits.T.astype(np.int64))


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize(("rows", "positions"), [(16, 16), (32, 128), (128, 32)])
def test_prefill_attention(
    rows: int, positions: int, kind: str, place: torch.device, tune, relative
) -> None:
    tune(prefill_attention._prefill_attention, BLOCK_ROWS=rows, BLOCK=positions)
    check_attention(prefill_attention.prefill_attention, 11, kind, place, relative)


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize("positions", [16, 32, 128])
@pytest.mark.parametrize("programs", [1, 264])
def test_decode_attention(
    positions: int, programs: int, kind: str, place: torch.device, tune, relative, monkeypatch
) -> None:
    """Few spans of many blocks, and as many spans as there are."""
    tune(decode_attention._decode_span, BLOCK=positions)
    monkeypatch.setattr(decode_attention, "_programs", lambda device: programs)
    check_attention(decode_attention.decode_attention, 1, kind, place, relative)


def check_attention(attend, tokens: int, kind: str, place: torch.device, relative) -> None:
    torch.manual_seed(tokens)
    position = 270
    cache = kv_caches(1, 2, 300, 20, kind, place)[0]
    for numbers, scales in ((cache.k, cache.k_scale), (cache.v, cache.v_scale)):
        numbers[..., :20] = (40 * torch.randn(2, 300, 20)).clamp(-127, 127).to(place)
        scales.copy_(torch.rand(scales.shape) / 40)
    q = torch.randn(tokens, 6, 20)
    k, v = (x.cpu()[:, : position + tokens] for x in cache.dense(20))
    expected = attention(q.transpose(0, 1), k, v, position).transpose(0, 1)
    assert relative(attend(q.to(place), cache, position), expected) < 1e-4


@pytest.mark.parametrize(("rows", "columns"), [(8, 256), (16, 64)])
def test_head(rows: int, columns: int, place: torch.device, tune, relative) -> None:
    torch.manual_seed(rows)
    tune(head_matvec._head_matvec, BLOCK_ROWS=rows, BLOCK=columns)
    weights, x = torch.randn(77, 200), torch.randn(200)
    out = head_matvec.head_matvec(weights.to(place), x.to(place))
    assert relative(out, weights @ x) < 1e-4
