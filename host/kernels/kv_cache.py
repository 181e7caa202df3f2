"""The KV cache of a model: 16 bits a number, or int8 codes with a scale a token and head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 16


@dataclass(frozen=True)
class KvCache:
    """K and V of one layer.

    k, v              binary16 or int8 [kv_heads, positions, width]; a row is padded to whole 16
                      numbers, so that it begins at a multiple of 16 bytes
    k_scale, v_scale  binary32 [kv_heads, positions]: what int8 codes are multiplied by; unused
                      for binary16
    """

    k: Tensor
    v: Tensor
    k_scale: Tensor
    v_scale: Tensor

    @property
    def int8(self) -> bool:
        return self.k.dtype == torch.int8

    def dense(self, head_dim: int) -> tuple[Tensor, Tensor]:
        """K and V in binary32 [kv_heads, positions, head_dim]."""
        k, v = (x[..., :head_dim].float() for x in (self.k, self.v))
        if self.int8:
            k, v = k * self.k_scale[..., None], v * self.v_scale[..., None]
        return k, v


def kv_caches(
    layers: int, kv_heads: int, positions: int, head_dim: int, kind: str, device: torch.device
) -> list[KvCache]:
    """Caches of all layers, every position of which reads as zeros; `kind` is one of
    `devices.triton.KV_KINDS`."""
    width = -(-head_dim // _ALIGNMENT) * _ALIGNMENT
    shape = (layers, 2, kv_heads, positions)
    numbers = torch.zeros((*shape, width), dtype=getattr(torch, kind), device=device)
    scales = torch.zeros(shape if kind == "int8" else (layers, 2, 1, 1), device=device)
    return [KvCache(*n, *s) for n, s in zip(numbers, scales, strict=True)]
