"""A ternary decoder: its description, its layers, where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from terntable.hw.errors import UserError

F32 = NDArray[np.float32]
BUILT_IN = Path(__file__).parent / "models"
RANDOM = "random:"
"""Begins the name of a model of random weights; the name of its shape follows."""


class ModelSpec(BaseModel):
    """Shape and semantics of a model: pre-norm decoder with rotary embeddings and a gated MLP."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    layers: int = Field(ge=1)
    hidden: int = Field(ge=2)
    ffn: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    vocab: int = Field(ge=2)
    context: int = Field(ge=1)
    rope_theta: float = Field(gt=0)
    eps: float = Field(ge=0)
    activation: Literal["relu2", "silu"]
    attn_sub_norm: bool = False
    ffn_sub_norm: bool = False
    tied: bool = True
    weight_only: bool = Field(
        default=False, description="published with activations in floating point, not in int8"
    )
    bos_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> ModelSpec:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads can't share {self.kv_heads} KV heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}: rotary embeddings need an even number")
        return self

    @property
    def ternary_weights(self) -> int:
        """Ternary weights of all layers, without the LM head."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_dim
        return self.layers * self.hidden * (attention + 3 * self.ffn)

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) of a layer's matrices."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (q, self.hidden),
            "k": (kv, self.hidden),
            "v": (kv, self.hidden),
            "o": (self.hidden, q),
            "gate": (self.ffn, self.hidden),
            "up": (self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
        }

    @property
    def norm_sizes(self) -> dict[str, int]:
        """Lengths of a layer's gain vectors, those that the model has."""
        sizes = {"attn_norm": self.hidden, "ffn_norm": self.hidden}
        if self.attn_sub_norm:
            sizes["attn_sub_norm"] = self.heads * self.head_dim
        if self.ffn_sub_norm:
            sizes["ffn_sub_norm"] = self.ffn
        return sizes


@dataclass(frozen=True)
class TernaryLinear:
    """A matrix W[r, c] = trits[r, c] * row scale of r * column scale of c.

    trits          int8 [out, in] in -1, 0, 1
    scale          binary32 [] or [blocks]: equal runs of rows, each with a scale of its own
    column_scale   binary32 [blocks], equal runs of columns; None where all are 1

    Published linears quantise their input (code = input * 127 / absmax): y = sums * scale / that.
    """

    trits: NDArray[np.int8]
    scale: np.float32 | F32
    column_scale: F32 | None = None

    @property
    def row_scales(self) -> F32:
        """binary32 [blocks]; block b holds rows b * out / blocks and up."""
        return np.atleast_1d(np.asarray(self.scale, np.float32))

    def dense(self) -> F32:
        """W in binary32 [out, in]."""
        rows, columns = self.trits.shape
        scales = self.row_scales
        w = self.trits * np.repeat(scales, rows // len(scales))[:, None]
        if self.column_scale is not None:
            w = w * np.repeat(self.column_scale, columns // len(self.column_scale))
        return w


@dataclass(frozen=True)
class Layer:
    """Matrices and gains by the names of `ModelSpec.linear_shapes` and `norm_sizes`."""

    linears: dict[str, TernaryLinear]
    gains: dict[str, F32]


@dataclass(frozen=True)
class TextAssets:
    """What turns text into ids: the text of a `tokenizer.json`, and a Jinja chat template."""

    tokenizer: str | None = None
    chat_template: str | None = None


@dataclass(frozen=True)
class Model:
    """A model whose layers are read when they are asked for.

    embedding  [vocab, hidden] in 16 bits (binary16, or bfloat16 as uint16) or binary32
    head       the same for the LM head; the embedding itself where the two are tied
    source     the checkpoint's folder or file, None for a random model
    origin     what the checkpoint was understood to be, a line for people
    warnings   what is odd about it, a line each
    text       reads tokenizer and chat template
    table_error  root mean square error of embedding and head in 16 bits, relative, the larger
    """

    spec: ModelSpec
    layer: Callable[[int], Layer]
    final_gain: F32
    embedding: NDArray
    head: NDArray
    source: Path | None = None
    origin: str = ""
    warnings: tuple[str, ...] = ()
    text: Callable[[], TextAssets] = TextAssets
    table_error: float = 0.0


def widen(x: NDArray) -> F32:
    """binary32 values of binary32, binary16, or bfloat16 kept as uint16."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32, copy=False)


def load_model(path_or_name: str | Path) -> Model:
    """The model of a checkpoint (folder, bundle or GGUF file), a built-in one ('tiny'), or random
    weights of a published shape ('random:bitnet-0.73b', see named_shapes).

    Raises UserError with one line that says what is wrong with it.
    """
    from terntable.host.checkpoints import open_checkpoint
    from terntable.host.named_shapes import named_shape

    if str(path_or_name).startswith(RANDOM):
        return random_model(named_shape(str(path_or_name).removeprefix(RANDOM)))
    path = Path(path_or_name)
    if not str(path_or_name):
        raise UserError("the model's name is empty: name a folder, or tiny")
    try:
        if path.exists():
            return open_checkpoint(path)
        if len(path.parts) == 1 and (BUILT_IN / path.name / "config.json").is_file():
            return open_checkpoint(BUILT_IN / path.name)
    except OSError as e:
        raise UserError(f"model {str(path)!r} can't be read: {e.strerror}") from None
    known = ", ".join(sorted(p.parent.name for p in BUILT_IN.glob("*/config.json")))
    raise UserError(
        f"no model {str(path)!r}: name a checkpoint folder or GGUF file"
        + (f", or one of {known}" if known else "")
    )


def random_model(spec: ModelSpec, seed: int = 0, shards: int = 1) -> Model:
    """A model with random trits whose activations stay near unit size.

    With `shards`, each matrix has that many scales: by rows those that make a row longer or split
    it into heads, by columns (o and down) those that sum it up again.

    Gains are kept small enough that attention does not saturate: otherwise rounding differences
    are amplified and no comparison with another implementation means anything.
    """

    def vector(rng: np.random.Generator, n: int, size: float) -> F32:
        return (size * (1 + 0.3 * rng.standard_normal(n))).astype(np.float32)

    def layer(n: int) -> Layer:
        rng = np.random.default_rng([seed, n])
        linears = {}
        for name, (rows, columns) in spec.linear_shapes.items():
            trits = rng.integers(-1, 2, (rows, columns), np.int8)
            size = (1.5 / columns) ** 0.5 * rng.uniform(0.8, 1.25)
            scale, across = np.float32(size), None
            if shards > 1:
                spread = rng.uniform(0.5, 2, shards).astype(np.float32)
                if name in ("o", "down"):
                    across = spread
                else:
                    scale = scale * spread
            linears[name] = TernaryLinear(trits, scale, across)
        gains = {name: vector(rng, size, 0.8) for name, size in spec.norm_sizes.items()}
        return Layer(linears, gains)

    rng = np.random.default_rng([seed, spec.layers])
    embedding = rng.standard_normal((spec.vocab, spec.hidden)).astype(np.float32)
    head = embedding
    if not spec.tied:
        head = rng.standard_normal((spec.vocab, spec.hidden)).astype(np.float32)
    return Model(spec, layer, vector(rng, spec.hidden, 1.0), embedding, head)
