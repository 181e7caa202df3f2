"""Small Hugging Face folders whose every number is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "vocab_size": 10,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "hidden_act": "relu2",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
}
ROWS = {
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
}
NORMS = {
    "input_layernorm": 8,
    "post_attention_layernorm": 8,
    "self_attn.attn_sub_norm": 8,
    "mlp.ffn_sub_norm": 12,
}


def pack(trits: np.ndarray) -> np.ndarray:
    """Row r and those a quarter, a half and three quarters further in one byte."""
    quarter = len(trits) // 4
    packed = np.zeros((quarter, trits.shape[1]), np.uint8)
    for row, values in enumerate(trits):
        packed[row % quarter] |= ((values + 1) << 2 * (row // quarter)).astype(np.uint8)
    return packed


@dataclass
class Folder:
    """A BitNet folder in the making: change `config` and `tensors`, then `write` it.

    trits  by layer and matrix, as in '1.mlp.up_proj'; scales are 0.5 and 1.5
    """

    path: Path
    config: dict = field(default_factory=lambda: json.loads(json.dumps(CONFIG)))
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    trits: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tensors |= {
            "model.embed_tokens.weight": rng.standard_normal((10, 8)).astype(np.float16),
            "model.norm.weight": np.ones(8, np.float32),
        }
        for n in range(2):
            for name, shape in ROWS.items():
                matrix = self.trits[f"{n}.{name}"] = rng.integers(-1, 2, shape)
                at = f"model.layers.{n}.{name}.weight"
                self.tensors[at] = pack(matrix)
                self.tensors[f"{at}_scale"] = np.array([0.5 + n], np.float32)
            for name, size in NORMS.items():
                gain = rng.standard_normal(size).astype(np.float32)
                self.tensors[f"model.layers.{n}.{name}.weight"] = gain

    def write(self) -> Path:
        self.path.mkdir(exist_ok=True)
        (self.path / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, self.path / "model.safetensors")
        return self.path

    def dense(self) -> Folder:
        """The same with each matrix in floating point, without scales of their own."""
        for name, trits in self.trits.items():
            n, matrix = name.split(".", 1)
            at = f"model.layers.{n}.{matrix}.weight"
            self.tensors[at] = (trits * (0.5 + int(n))).astype(np.float32)
            del self.tensors[f"{at}_scale"]
        return self


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "m")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[str], Folder]:
    """A folder of that name."""
    return lambda name: Folder(tmp_path / name)
