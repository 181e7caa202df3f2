"""A ternary decoder in PyTorch with the published semantics, written to be read.

It takes a Model as loaded, before any of the compiler's reordering, padding or quantisation of
the head. Weights, residual stream and KV cache are in one dtype.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terntable.host.model import Layer, Model, ModelSpec

from .operations import BitLinear, Matrix, activate, attention, rms_norm, rope_tables, rotate


class Decoder:
    """A model on a processor with its KV cache; runs one sequence.

    widen   keep all weights in `dtype`; else the trits as int8 and the head as in the checkpoint,
            widened at each use
    layers  the residual stream of the last row that was run, after each layer [layers, hidden]
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        widen: bool = True,
    ) -> None:
        self.spec = spec = model.spec
        self.device, self.dtype, self.widen = torch.device(device), dtype, widen
        self.blocks = [self._block(model.layer(n)) for n in range(spec.layers)]
        self._final_gain = _tensor(model.final_gain).to(self.device)
        self._head = self._matrix(model.head)
        self.layers = torch.zeros(spec.layers, spec.hidden, device=self.device)
        self.reset()

    def reset(self, positions: int = 0) -> None:
        """Empty the KV cache [layers, K or V, kv_heads, positions, head_dim]. It grows."""
        spec = self.spec
        shape = (spec.layers, 2, spec.kv_heads, positions, spec.head_dim)
        self._kv = torch.zeros(shape, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def forward(self, x: Tensor, position: int) -> Tensor:
        """Residual stream [tokens, hidden] after the last layer, from embedding rows at
        `position` and up. Their K and V replace what the cache held there."""
        x = x.to(self.device, self.dtype)
        self._reserve(position + len(x))
        tables = rope_tables(position, len(x), self.spec.head_dim, self.spec.rope_theta)
        cosine, sine = (t.to(self.device) for t in tables)
        for n, block in enumerate(self.blocks):
            x = block(x, self._kv[n], position, cosine, sine)
            self.layers[n] = x[-1]
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits [tokens, vocab], binary32, of the residual stream after the last layer."""
        return self._head(rms_norm(x, self._final_gain, self.spec.eps).to(self.dtype)).float()

    def _block(self, layer: Layer) -> Block:
        linears = {
            name: BitLinear(linear, self._matrix(linear.trits), not self.spec.weight_only)
            for name, linear in layer.linears.items()
        }
        gains = {name: _tensor(gain).to(self.device) for name, gain in layer.gains.items()}
        return Block(self.spec, linears, gains, self.dtype)

    def _matrix(self, values: NDArray) -> Matrix:
        tensor = _tensor(values)
        return Matrix(tensor.to(self.device, self.dtype if self.widen else tensor.dtype))

    def _reserve(self, positions: int) -> None:
        """Let the cache hold this many: at least twice what it held, zeros behind them."""
        kept = self._kv
        held = kept.shape[3]
        if positions > held:
            self.reset(max(positions, 2 * held))
            self._kv[:, :, :, :held] = kept


class Block:
    """A decoder layer: attention, then the gated MLP, each behind a norm and added to x."""

    def __init__(
        self,
        spec: ModelSpec,
        linears: dict[str, BitLinear],
        gains: dict[str, Tensor],
        dtype: torch.dtype,
    ) -> None:
        self.spec, self.linears, self.gains, self.dtype = spec, linears, gains, dtype

    def __call__(
        self, x: Tensor, cache: Tensor, position: int, cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """x [tokens, hidden] at `position` and up; writes cache [2, kv_heads, positions, dims]."""
        normal, end = self._norm(x, "attn_norm"), position + len(x)
        q, k, v = (self._heads(self._linear(normal, name)) for name in ("q", "k", "v"))
        keys, values = cache
        keys[:, position:end] = rotate(k, cosine, sine)
        values[:, position:end] = v
        mixed = attention(rotate(q, cosine, sine), keys[:, :end], values[:, :end], position)
        mixed = mixed.transpose(0, 1).reshape(len(x), -1)
        x = x + self._linear(self._norm(mixed, "attn_sub_norm"), "o")

        normal = self._norm(x, "ffn_norm")
        gate, up = self._linear(normal, "gate"), self._linear(normal, "up")
        inner = activate(gate, self.spec.activation) * up
        return x + self._linear(self._norm(inner, "ffn_sub_norm"), "down")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """binary32. A sub-norm that the model lacks does nothing."""
        return rms_norm(x, self.gains[name], self.spec.eps) if name in self.gains else x.float()

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return self.linears[name](x, self.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        """[tokens, heads * head_dim] as [heads, tokens, head_dim]."""
        return x.view(len(x), -1, self.spec.head_dim).transpose(0, 1)


def _tensor(x: NDArray) -> Tensor:
    """The same memory as a tensor; uint16 is bfloat16 (see Model)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it may be read-only: it is only read
        if x.dtype == np.uint16:
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x)
