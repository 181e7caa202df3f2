"""Set up before any test module is imported, and fixtures for all of them."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import terntable.host  # noqa: F401  sets NumPy's threads before NumPy is imported

import numpy as np  # isort: skip
import pytest
from safetensors.numpy import save_file

from terntable.host.checkpoints.config_json import LINEARS, NORMS
from terntable.host.checkpoints.huggingface import EMBEDDING, FINAL_NORM, HEAD
from terntable.host.model import Model

if not Path("/dev/nvidiactl").exists():
    # Before a test imports triton, as transformers does: without a GPU its kernels are interpreted.
    os.environ.setdefault("TRITON_INTERPRET", "1")

if threading.current_thread() is threading.main_thread():
    # Tests signal the processes that they start. In the background of a shell or under nohup these
    # would inherit that the signal is ignored; a handler is not inherited.
    for _number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, lambda number, frame: None)


def _pack(trits: np.ndarray) -> np.ndarray:
    """Two-bit codes of four rows, a quarter of the matrix apart, in a byte."""
    quarters = (trits + 1).astype(np.uint8).reshape(4, -1, trits.shape[1])
    return np.bitwise_or.reduce([q << 2 * i for i, q in enumerate(quarters)])


def _save(model: Model, folder: Path) -> Path:
    spec = model.spec
    tensors = {FINAL_NORM: model.final_gain, EMBEDDING: model.embedding}
    if not spec.tied:
        tensors[HEAD] = model.head
    for n in range(spec.layers):
        layer, at = model.layer(n), f"model.layers.{n}"
        for name, linear in layer.linears.items():
            tensors[f"{at}.{LINEARS[name]}.weight"] = _pack(linear.trits)
            tensors[f"{at}.{LINEARS[name]}.weight_scale"] = np.array([linear.scale], np.float32)
        for name, gain in layer.gains.items():
            tensors[f"{at}.{NORMS[name]}.weight"] = gain
    config = {
        "model_type": "bitnet" if spec.ffn_sub_norm else "llama",
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.eps,
        "rope_theta": spec.rope_theta,
        "hidden_act": spec.activation,
        "tie_word_embeddings": spec.tied,
        "bos_token_id": list(spec.bos_ids),
        "eos_token_id": list(spec.eos_ids),
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def save_model() -> Callable[[Model, Path], Path]:
    """Writes a model as a new checkpoint folder, without a tokenizer."""
    return _save
