"""What the attention unit computes, in NumPy: the numeric contract's order, row by row."""

from __future__ import annotations

import numpy as np

from .. import numeric
from ..config import KV_BLOCK
from ..numeric import F32, I64


def reference(
    q_codes: I64,
    q_scales: F32,
    k_codes: I64,
    k_scales: F32,
    v_codes: I64,
    v_scales: F32,
    position: int,
) -> F32:
    """Attention outputs [tokens, heads * head_dims] of a chunk whose first token is at `position`.

    `q_codes` is [tokens, heads, head_dims], `q_scales` [tokens, heads] with log2(e) /
    sqrt(head_dim) folded in. `k_codes` and `v_codes` are [kv_heads, positions, head_dims] and
    their scales [kv_heads, positions]; positions up to that of the last token must be there.
    Codes are int16. Query head h attends to KV head h // (heads // kv_heads).
    """
    tokens, heads, head_dims = q_codes.shape
    per_kv = heads // k_codes.shape[0]
    out = np.zeros((tokens, heads, head_dims), np.float32)
    for token in range(tokens):
        for head in range(heads):
            kv = head // per_kv
            out[token, head] = _row(
                np.asarray(q_codes[token, head], np.int64),
                q_scales[token, head],
                np.asarray(k_codes[kv], np.int64),
                numeric.sanitise(k_scales[kv]),
                np.asarray(v_codes[kv], np.int64),
                numeric.sanitise(v_scales[kv]),
                position + token,
            )
    return out.reshape(tokens, heads * head_dims)


def _row(
    q: I64, q_scale: np.float32, k: I64, k_scale: F32, v: I64, v_scale: F32, newest: int
) -> F32:
    """One query at position `newest`: blocks from the newest to block 0."""
    o = np.zeros(len(q), np.int64)
    l = np.int64(0)
    max_p = max_w = None
    for block in range(newest // KV_BLOCK, -1, -1):
        here = slice(block * KV_BLOCK, min((block + 1) * KV_BLOCK, newest + 1))
        scores = numeric.score(k[here] @ q, q_scale, k_scale[here])
        whole = scores >> numeric.SCORE_FRACTION
        block_p = int(whole.max())
        block_w = int((whole + numeric.exponent(v_scale[here])).max())
        if max_p is None or max_w is None:
            max_p, max_w = block_p, block_w
        rise_p, rise_w = max(block_p - max_p, 0), max(block_w - max_w, 0)
        max_p, max_w = max_p + rise_p, max_w + rise_w
        p, w = numeric.attention_weights(scores, v_scale[here], max_p, max_w)
        l = (l >> min(rise_p, 63)) + p.sum()
        o = (o >> min(rise_w, 63)) + w @ v[here]
    assert max_p is not None and max_w is not None  # block 0 is always there
    return numeric.attention_output(o, l, max_p, max_w)
