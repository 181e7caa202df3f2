"""A ternary decoder on the kernels: what the accelerator does, token rows in binary32 between."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terntable.host.kernels.decode_attention import decode_attention
from terntable.host.kernels.head_matvec import head_matvec
from terntable.host.kernels.kv_cache import KvCache, kv_caches
from terntable.host.kernels.norm_quant import norm_quant
from terntable.host.kernels.prefill_attention import prefill_attention
from terntable.host.kernels.rope_cache import rope_cache
from terntable.host.kernels.ternary import PackedMatrix, QuantisedRows
from terntable.host.kernels.ternary_matmul import ternary_matmul
from terntable.host.model import Layer, Model, ModelSpec
from terntable.host.reference.operations import rms_norm
from terntable.host.rope import rope_rows
from terntable.hw.errors import UserError

_INPUTS = {
    "attn_norm": ("q", "k", "v"),
    "attn_sub_norm": ("o",),
    "ffn_norm": ("gate", "up"),
    "ffn_sub_norm": ("down",),
}
"""Matrices that share an input, by the norm before their quantisation."""


class TernaryDecoder:
    """A model on a processor with its KV cache; runs one sequence.

    layers  the residual stream of the last row that was run, after each layer [layers, hidden]
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.spec = spec = model.spec
        self.device = device
        self._blocks = [
            _Block.of(spec, model.layer(n), f"model {spec.name!r}, layer {n}", device)
            for n in range(spec.layers)
        ]
        self._final_gain = _tensor(model.final_gain, device)
        self._head = _tensor(model.head, device)
        self.layers = torch.zeros(spec.layers, spec.hidden, device=device)
        self._caches: list[KvCache] = []
        self._turns = (torch.zeros(0), torch.zeros(0))

    def reset(self, positions: int, kind: str) -> None:
        """Empty the KV cache: `positions` in number format `kind`, one of
        `devices.triton.KV_KINDS`."""
        spec = self.spec
        self._caches = []  # the old one's memory is free before the new one is made
        self._caches = kv_caches(
            spec.layers, spec.kv_heads, positions, spec.head_dim, kind, self.device
        )
        rows = rope_rows(positions, spec.head_dim, spec.rope_theta, spec.head_dim)
        self._turns = (
            _tensor(np.ascontiguousarray(rows[:, 0::2]), self.device),
            _tensor(np.ascontiguousarray(rows[:, 1::2]), self.device),
        )

    @torch.inference_mode()
    def forward(self, x: Tensor, position: int) -> Tensor:
        """Residual stream [tokens, hidden] after the last layer, from embedding rows, binary32,
        at `position` and up. Their K and V replace what the cache held there."""
        x = x.to(self.device)
        for n, (block, cache) in enumerate(zip(self._blocks, self._caches, strict=True)):
            x = block(x, cache, self._turns, position)
            self.layers[n] = x[-1]
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits [vocab] of a row [hidden] of the residual stream after the last layer."""
        return head_matvec(self._head, rms_norm(x, self._final_gain, self.spec.eps))


@dataclass(frozen=True)
class _Block:
    """A decoder layer: attention, then the gated MLP, each behind a norm and added to x.

    matrices  by the norm before them, those with the same input as one
    gains     what is multiplied in before they quantise it, where there is anything
    norms     names of the norms that the model has
    """

    spec: ModelSpec
    matrices: dict[str, PackedMatrix]
    gains: dict[str, Tensor]
    norms: frozenset[str]

    @classmethod
    def of(cls, spec: ModelSpec, layer: Layer, where: str, device: torch.device) -> _Block:
        matrices, gains = {}, {}
        for norm, names in _INPUTS.items():
            matrices[norm] = PackedMatrix.of([layer.linears[name] for name in names], device)
            gain = _gain(layer, norm, names, where)
            if gain is not None:
                gains[norm] = _tensor(gain, device)
        return cls(spec, matrices, gains, frozenset(layer.gains))

    def __call__(
        self, x: Tensor, cache: KvCache, turns: tuple[Tensor, Tensor], position: int
    ) -> Tensor:
        """x [tokens, hidden] at `position` and up."""
        spec, tokens = self.spec, len(x)
        qkv = self._linear(self._codes(x, "attn_norm"), "attn_norm")
        q = torch.empty((tokens, spec.heads, spec.head_dim), device=x.device)
        rope_cache(qkv, *turns, q, cache, position)
        attend = decode_attention if tokens == 1 else prefill_attention
        mixed = attend(q, cache, position).view(tokens, -1)
        x = self._linear(self._codes(mixed, "attn_sub_norm"), "attn_sub_norm", x)

        gate_up = self._linear(self._codes(x, "ffn_norm"), "ffn_norm")
        inner = self._codes(gate_up, "ffn_sub_norm", spec.activation)
        return self._linear(inner, "ffn_sub_norm", x)

    def _codes(self, x: Tensor, norm: str, gate: str | None = None) -> QuantisedRows:
        eps = self.spec.eps if norm in self.norms else None
        return norm_quant(x, self.gains.get(norm), eps, gate)

    def _linear(self, x: QuantisedRows, norm: str, residual: Tensor | None = None) -> Tensor:
        return ternary_matmul(x, self.matrices[norm], residual)


def _gain(
    layer: Layer, norm: str, names: tuple[str, ...], where: str
) -> NDArray[np.float32] | None:
    """The norm's gain times the scales of the columns of the matrices behind it."""
    gain = layer.gains.get(norm)
    linears = [layer.linears[name] for name in names]
    if all(linear.column_scale is None for linear in linears):
        return gain
    scales = []
    for linear in linears:
        columns = linear.trits.shape[1]
        scale = np.ones(1, np.float32) if linear.column_scale is None else linear.column_scale
        scales.append(np.repeat(scale, columns // len(scale)))
    if any((scale != scales[0]).any() for scale in scales):
        raise UserError(
            f"{where}: {', '.join(names)} scale the columns of one input differently, device"
            " triton quantises it once: take device torch"
        )
    return scales[0] if gain is None else gain * scales[0]


def _tensor(x: NDArray, device: torch.device) -> Tensor:
    """On the processor; uint16 is bfloat16 (see Model)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it may be read-only: it is only read
        if x.dtype == np.uint16:
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(x).to(device)
