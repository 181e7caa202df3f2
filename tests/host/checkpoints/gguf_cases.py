"""Small GGUF files, written by the gguf package, of models whose every number is known."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from terntable.host.model import Model, ModelSpec, TernaryLinear, random_model  # noqa: E402

SPEC = {
    "name": "small",
    "layers": 2,
    "hidden": 256,
    "ffn": 512,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "vocab": 96,
    "context": 64,
    "rope_theta": 10000.0,
    "eps": 1e-5,
}
NAMES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


class Fork(enum.IntEnum):
    """Types that the package doesn't know."""

    I2_S = 36


def spec_of(architecture: str, **changes: object) -> ModelSpec:
    """A small model as files of this architecture hold them."""
    own = {
        "llama": {"activation": "silu", "tied": False},
        "bitnet": {"activation": "silu", "attn_sub_norm": True, "ffn_sub_norm": True},
    }
    squared = {"activation": "relu2", "attn_sub_norm": True, "ffn_sub_norm": True}
    return ModelSpec(**(SPEC | own.get(architecture, squared) | changes))


def small_model(spec: ModelSpec, seed: int = 0) -> Model:
    """A random model whose scales and embeddings are binary16 numbers."""
    model = random_model(spec, seed)

    def layer(n: int):
        found = model.layer(n)
        for name, linear in found.linears.items():
            scale = np.float32(np.float16(linear.scale))
            found.linears[name] = TernaryLinear(linear.trits, scale)
        return found

    embedding = model.embedding.astype(np.float16)
    head = embedding if spec.tied else model.head.astype(np.float16)
    return Model(spec, layer, model.final_gain, embedding, head)


def pack_i2s(trits: np.ndarray, scale: float, group: int = 32) -> np.ndarray:
    """Blocks of four groups, the first one in the highest bits, then the scale in 32 bytes."""
    packed = bytearray()
    for block in (trits.reshape(-1, 4 * group) + 1).tolist():
        for p in range(group):
            a, b, c, d = block[p::group]
            packed.append(a << 6 | b << 4 | c << 2 | d)
    return np.frombuffer(bytes(packed) + np.float32(scale).tobytes() + bytes(28), np.int8)


def pack_rows(trits: np.ndarray, scale: float) -> np.ndarray:
    """The later order of bitnet.cpp: a byte holds four rows' codes of a column."""
    codes = (trits + 1).astype(np.uint8).reshape(-1, 4, trits.shape[1])
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return np.frombuffer(packed.tobytes() + np.float32(scale).tobytes() + bytes(28), np.int8)


def interleave(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter orders those of q and k in files of arch llama."""
    rows = weights.reshape(heads, 2, len(weights) // heads // 2, -1)
    return rows.swapaxes(1, 2).reshape(weights.shape)


Change = Callable[["gguf.GGUFWriter"], None]


class Writer(gguf.GGUFWriter):
    """A writer that knows types by their names."""

    def table(self, name: str, values: np.ndarray, kind: str) -> None:
        """A tensor in a type of the package, or in bfloat16 by dropping bits."""
        number = gguf.GGMLQuantizationType[kind]
        if kind == "BF16":
            bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            self.add_tensor(name, bits.view(np.uint8), raw_dtype=number)
            return
        data = gguf.quantize(values.astype(np.float32), number)
        self.add_tensor(name, data, raw_dtype=number)


def hyperparameters(writer: Writer, spec: ModelSpec) -> None:
    writer.add_name(spec.name)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.eps)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_context_length(spec.context)
    writer.add_vocab_size(spec.vocab)


def write_gguf(
    path: Path,
    model: Model,
    architecture: str,
    kind: str,
    *,
    table: str = "F16",
    change: Change | None = None,
    without: tuple[str, ...] = (),
    pack: Callable[..., np.ndarray] = pack_i2s,
) -> Path:
    """The file of a model. Tensors in `without` stay out; `change` may add others."""
    spec, writer = model.spec, Writer(path, architecture)
    hyperparameters(writer, spec)
    add = writer.add_tensor
    writer.add_tensor = lambda name, *rest, **named: (  # type: ignore[method-assign]
        None if name in without else add(name, *rest, **named)
    )
    writer.table("token_embd.weight", model.embedding, table)
    if not spec.tied:
        writer.table("output.weight", model.head, table)
    writer.add_tensor("output_norm.weight", model.final_gain)
    for n in range(spec.layers):
        layer = model.layer(n)
        for name, linear in layer.linears.items():
            trits, dense = linear.trits, linear.dense()
            if architecture == "llama" and name in "qk":
                heads = len(trits) // spec.head_dim
                trits, dense = interleave(trits, heads), interleave(dense, heads)
            if kind == "I2_S":
                data = pack(trits, linear.scale)
                writer.add_tensor(f"blk.{n}.{NAMES[name]}.weight", data, trits.shape, Fork.I2_S)
            else:
                writer.table(f"blk.{n}.{NAMES[name]}.weight", dense, kind)
        for name, gain in layer.gains.items():
            writer.add_tensor(f"blk.{n}.{name}.weight", gain)
    del writer.add_tensor
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
