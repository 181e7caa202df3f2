"""The training graph of ``tiny``: a BitNet b1.58 decoder with straight-through quantisation.

The ternary image of every weight matrix is made once a step and is a leaf of the graph; its
gradient, by the straight-through rule, moves the float master weights behind it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from terntable.host.models.published import EMBEDDING

HIDDEN, FFN, LAYERS = 256, 704, 4
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
CONTEXT, VOCAB, EPS, THETA = 1024, 1024, 1e-5, 10000.0
# Linear layers that read the same activations are one matrix while training.
GROUPS = {
    "qkv": [("self_attn.q_proj", HIDDEN), ("self_attn.k_proj", 128), ("self_attn.v_proj", 128)],
    "o": [("self_attn.o_proj", HIDDEN)],
    "gate_up": [("mlp.gate_proj", FFN), ("mlp.up_proj", FFN)],
    "down": [("mlp.down_proj", HIDDEN)],
}
NORMS = {
    "input_layernorm": HIDDEN,
    "self_attn.attn_sub_norm": HIDDEN,
    "post_attention_layernorm": HIDDEN,
    "mlp.ffn_sub_norm": FFN,
}


def ternary(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight matrix to trits and its absmean scale (rounded to bfloat16)."""
    scale = weight.abs().mean().clamp_min(1e-5)
    return (weight / scale).round().clamp(-1, 1), scale.bfloat16()


def rope_tables(length: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, ``[length, head_dim]``, for rotate-half embeddings."""
    frequency = THETA ** (-torch.arange(0, HEAD_DIM, 2).double() / HEAD_DIM)
    angle = torch.outer(torch.arange(length).double(), frequency).repeat(1, 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotate-half position embeddings to ``[..., length, head_dim]``."""
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat((-high, low), -1) * sine


class Trainer:
    """Float master weights, their ternary images and the optimiser (Muon and AdamW)."""

    def __init__(self, lr: float, muon_lr: float, compiled: bool) -> None:
        self.embedding = (torch.randn(VOCAB, HIDDEN) * 0.04).requires_grad_()
        self.gains = {
            f"{n}.{name}": torch.ones(size, requires_grad=True)
            for n in range(LAYERS)
            for name, size in NORMS.items()
        }
        self.gains["norm"] = torch.ones(HIDDEN, requires_grad=True)
        self.master: dict[str, Tensor] = {}
        self.trits: dict[str, Tensor] = {}  # leaves: their gradients drive the masters
        self.scales: dict[str, Tensor] = {}
        for n in range(LAYERS):
            for group, members in GROUPS.items():
                rows, columns = sum(r for _, r in members), FFN if group == "down" else HIDDEN
                for name, out in members:
                    self.master[f"{n}.{name}"] = torch.randn(out, columns) * 0.02
                leaf = torch.zeros(rows, columns, dtype=torch.bfloat16, requires_grad=True)
                self.trits[f"{n}.{group}"] = leaf
                self.scales[f"{n}.{group}"] = torch.zeros(rows)
        self.momentum = {name: torch.zeros_like(w) for name, w in self.master.items()}
        self.muon_lr = muon_lr
        self.adam = torch.optim.AdamW(
            [{"params": [self.embedding]}, {"params": list(self.gains.values())}],
            lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True,
        )  # fmt: skip
        self.tables = rope_tables(CONTEXT)
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss
        self.quantise()

    @torch.no_grad()
    def quantise(self) -> None:
        """Refresh the ternary images of the master weights."""
        for key, leaf in self.trits.items():
            layer, group = key.split(".")
            row = 0
            for name, out in GROUPS[group]:
                trits, scale = ternary(self.master[f"{layer}.{name}"])
                leaf[row : row + out] = trits
                self.scales[key][row : row + out] = scale.float()
                row += out

    def _linear(self, x: Tensor, key: str) -> Tensor:
        scale = 127 / x.detach().abs().amax(-1, keepdim=True).clamp_min(1e-5)
        scaled = x * scale
        whole = scaled + (scaled.round() - scaled).detach()  # straight through
        return F.linear(whole.bfloat16(), self.trits[key]).float() * (self.scales[key] / scale)

    def _norm(self, x: Tensor, key: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * self.gains[key]

    def _attention(self, x: Tensor, layer: int) -> Tensor:
        batch, length, _ = x.shape
        cosine, sine = (table[:length] for table in self.tables)
        qkv = self._linear(x, f"{layer}.qkv").view(batch, length, -1, HEAD_DIM).transpose(1, 2)
        q, k, v = qkv.split((HEADS, KV_HEADS, KV_HEADS), 1)
        q = rotate(q, cosine, sine).bfloat16()
        k, v = rotate(k, cosine, sine).bfloat16(), v.bfloat16()
        if length > 256:
            k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:  # one matrix product a KV head: the queries of its heads lie below each other
            folded = q.reshape(batch, KV_HEADS, -1, HEAD_DIM)
            scores = (folded @ k.transpose(-1, -2)).float() * HEAD_DIM**-0.5
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future.repeat(HEADS // KV_HEADS, 1), -1e4)
            mixed = (scores.softmax(-1).bfloat16() @ v).view(batch, HEADS, length, HEAD_DIM)
        return mixed.transpose(1, 2).reshape(batch, length, HIDDEN).float()

    def _loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        table = self.embedding.bfloat16()
        x = F.embedding(tokens, table).float()
        for n in range(LAYERS):
            mixed = self._attention(self._norm(x, f"{n}.input_layernorm"), n)
            mixed = self._linear(self._norm(mixed, f"{n}.self_attn.attn_sub_norm"), f"{n}.o")
            x = x + mixed
            wide = self._linear(self._norm(x, f"{n}.post_attention_layernorm"), f"{n}.gate_up")
            gate, up = wide.split(FFN, -1)
            inner = self._norm(gate.relu().square() * up, f"{n}.mlp.ffn_sub_norm")
            x = x + self._linear(inner, f"{n}.down")
        logits = F.linear(self._norm(x, "norm").bfloat16(), table).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def step(self, tokens: Tensor, targets: Tensor, rate: float, decay: float) -> float:
        """Do one optimiser step; ``rate`` scales the learning rates. Returns the loss."""
        loss = self.loss(tokens, targets)
        loss.backward()
        gradients: dict[str, Tensor] = {}
        for key, leaf in self.trits.items():
            layer, group = key.split(".")
            if leaf.grad is None:
                raise RuntimeError(f"no gradient for {key}")
            parts = leaf.grad.split([out for _, out in GROUPS[group]])
            gradients |= {f"{layer}.{m[0]}": g for m, g in zip(GROUPS[group], parts, strict=True)}
        self._muon(gradients, self.muon_lr * rate, decay)
        for group in self.adam.param_groups:
            group["lr"] = self.adam.defaults["lr"] * rate
        small = [self.embedding, *self.gains.values()]
        torch.nn.utils.clip_grad_norm_(small, 1.0)
        self.adam.step()
        for leaf in (*small, *self.trits.values()):
            leaf.grad = None
        self.quantise()
        return loss.item()

    @torch.no_grad()
    def _muon(self, gradients: dict[str, Tensor], lr: float, decay: float) -> None:
        """Move each matrix along its orthogonalised momentum (so its size needs no clipping)."""
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, weight in self.master.items():
            shapes.setdefault(tuple(sorted(weight.shape)), []).append(name)
        for names in shapes.values():
            stack = []
            for name in names:
                gradient, velocity = gradients[name].float(), self.momentum[name]
                velocity.lerp_(gradient, 0.05)
                blend = gradient.lerp(velocity, 0.95)
                stack.append(blend.T if blend.shape[0] > blend.shape[1] else blend)
            x = torch.stack(stack)
            x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)).bfloat16()
            for _ in range(5):  # Newton-Schulz
                gram = x @ x.mT
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            for name, update in zip(names, x.float(), strict=True):
                weight = self.master[name]
                update = update.T if weight.shape[0] > weight.shape[1] else update
                size = 0.2 * math.sqrt(max(weight.shape))  # the usual size of an AdamW update
                weight.mul_(1 - lr * decay).sub_(update, alpha=lr * size)

    def save(self, path: Path, step: int, spent: float) -> None:
        """Write a checkpoint from which training can go on."""
        state = [self.embedding, self.gains, self.master, self.momentum, self.adam.state_dict()]
        torch.save({"state": state, "step": step, "spent": spent}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> tuple[int, float]:
        """Read a checkpoint; return its step and the seconds spent."""
        checkpoint = torch.load(path)
        embedding, gains, self.master, self.momentum, adam = checkpoint["state"]
        with torch.no_grad():
            self.embedding.copy_(embedding)
            for key, gain in gains.items():
                self.gains[key].copy_(gain)
        self.adam.load_state_dict(adam)
        self.quantise()
        return checkpoint["step"], checkpoint["spent"]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the exported checkpoint."""
        result = {EMBEDDING: self.embedding.detach().bfloat16()}
        for key, gain in self.gains.items():
            name = "model.norm" if key == "norm" else f"model.layers.{key}"
            result[f"{name}.weight"] = gain.detach().bfloat16()
        for key, weight in self.master.items():
            trits, scale = ternary(weight)
            codes = (trits + 1).to(torch.uint8).view(4, -1, weight.shape[1])
            packed = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
            result[f"model.layers.{key}.weight"] = packed
            result[f"model.layers.{key}.weight_scale"] = scale.view(1)
        return result
