"""Independent float32 evaluation of an exported BitNet b1.58 folder.

It shares no code with the training graph: it unpacks the ternary weights and follows the
published semantics of microsoft/bitnet-b1.58-2B-4T, without a key-value cache.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

EMBEDDING = "model.embed_tokens.weight"


class Published:
    """A model read from its folder; it works on one sequence at a time."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.weights: dict[str, Tensor] = {}
        for name, tensor in load_file(folder / "model.safetensors").items():
            if tensor.dtype == torch.uint8:
                tensor = torch.cat([(tensor >> 2 * i & 3).float() - 1 for i in range(4)])
            self.weights[name] = tensor.float()

    def _bit_linear(self, x: Tensor, name: str) -> Tensor:
        scale = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
        whole = (x * scale).round().clamp(-128, 127)
        product = whole @ self.weights[f"{name}.weight"].T
        return product * self.weights[f"{name}.weight_scale"] / scale

    def _rms_norm(self, x: Tensor, name: str) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)
        normal = x * torch.rsqrt(variance + self.config["rms_norm_eps"])
        return normal * self.weights[f"{name}.weight"]

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits ``[length, vocab]`` of one token sequence."""
        c = self.config
        heads, shared, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        length = len(tokens)
        power = torch.arange(0, size, 2).double() / size
        angle = torch.arange(length).double()[:, None] * c["rope_theta"] ** -power
        cosine, sine = angle.cos().float(), angle.sin().float()

        def turn(x: Tensor) -> Tensor:
            a, b = x[..., : size // 2], x[..., size // 2 :]
            return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)

        x = self.weights[EMBEDDING][tokens]
        hidden_keys = torch.full((length, length), -torch.inf).triu(1)
        for n in range(c["num_hidden_layers"]):
            at = f"model.layers.{n}"
            normal = self._rms_norm(x, f"{at}.input_layernorm")
            q, k, v = (
                self._bit_linear(normal, f"{at}.self_attn.{p}_proj")
                .view(length, count, size)
                .transpose(0, 1)
                for p, count in (("q", heads), ("k", shared), ("v", shared))
            )
            q, k = turn(q), turn(k)
            k, v = (t.repeat_interleave(heads // shared, 0) for t in (k, v))
            mixed = torch.softmax(q @ k.mT / math.sqrt(size) + hidden_keys, -1) @ v
            mixed = mixed.transpose(0, 1).reshape(length, heads * size)
            mixed = self._rms_norm(mixed, f"{at}.self_attn.attn_sub_norm")
            x = x + self._bit_linear(mixed, f"{at}.self_attn.o_proj")
            normal = self._rms_norm(x, f"{at}.post_attention_layernorm")
            gate = torch.relu(self._bit_linear(normal, f"{at}.mlp.gate_proj")) ** 2
            inner = gate * self._bit_linear(normal, f"{at}.mlp.up_proj")
            inner = self._rms_norm(inner, f"{at}.mlp.ffn_sub_norm")
            x = x + self._bit_linear(inner, f"{at}.mlp.down_proj")
        return self._rms_norm(x, "model.norm") @ self.weights[EMBEDDING].T

    def bits_per_character(self, text: str, window: int | None = None) -> float:
        """Return the mean cost of ``text`` in windows of ``window`` tokens; every token counts.

        Without ``window`` a window is the model's full context.
        """
        ids = [self.config["eos_token_id"], *self.tokenizer.encode(text).ids]
        window, nats = window or self.config["max_position_embeddings"], 0.0
        for start in range(0, len(ids) - 1, window):
            piece = torch.tensor(ids[start : start + window + 1])
            logits = self.logits(piece[:-1])
            nats += F.cross_entropy(logits, piece[1:], reduction="sum").item()
        return nats / math.log(2) / len(text)

    def sample(self, prompt: str, count: int, temperature: float, seed: int = 0) -> str:
        """Continue ``prompt`` by ``count`` tokens; temperature 0 is greedy."""
        generator = torch.Generator().manual_seed(seed)
        ids = self.tokenizer.encode(prompt).ids
        for _ in range(count):
            last = self.logits(torch.tensor(ids))[-1]
            if temperature > 0:
                chances = torch.softmax(last / temperature, -1)
                ids.append(int(torch.multinomial(chances, 1, generator=generator)))
            else:
                ids.append(int(last.argmax()))
        return self.tokenizer.decode(ids)
