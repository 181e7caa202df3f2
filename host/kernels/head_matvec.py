"""The LM head of one token: weights in the checkpoint's 16 bits, everything else in binary32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.tuning import FUSED, tuned


def _config(rows: int, columns: int, warps: int) -> triton.Config:
    return triton.Config({"BLOCK_ROWS": rows, "BLOCK": columns}, num_warps=warps)


@tuned(
    [
        _config(8, 256, 4),
        _config(8, 512, 4),
        _config(16, 256, 4),
        _config(16, 512, 8),
    ],
    interpreted=_config(1024, 128, 1),
    key=["rows", "columns"],
)
@triton.jit
def _head_matvec(
    weights, x, out, rows, columns, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK)
    at = weights + row[:, None].to(tl.int64) * columns + column[None, :]
    sums = tl.full((BLOCK_ROWS, BLOCK), 0.0, tl.float32)
    for start in range(0, columns, BLOCK):
        left = start + column < columns
        w = tl.load(at + start, mask=(row < rows)[:, None] & left[None, :], other=0.0)
        a = tl.load(x + start + column, mask=left, other=0.0)
        sums += w.to(tl.float32) * a[None, :]
    tl.store(out + row, tl.sum(sums, 1), mask=row < rows)


def head_matvec(weights: Tensor, x: Tensor) -> Tensor:
    """Logits, binary32 [vocab], of weights [vocab, hidden], binary16, bfloat16 or binary32, and
    x, binary32 [hidden]."""
    rows, columns = weights.shape
    out = torch.empty(rows, dtype=torch.float32, device=x.device)
    _head_matvec[lambda meta: (triton.cdiv(rows, meta["BLOCK_ROWS"]),)](
        weights, x, out, rows, columns, **FUSED
    )
    return out
