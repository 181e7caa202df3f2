"""The model bundle: the project's own folder for a model, read a layer at a time and verified.

| file | contents |
| --- | --- |
| `model.json` | what `Manifest` describes |
| `weights.safetensors` | the tensors below |
| `tokenizer.json`, `chat_template.jinja` | where the model has them |

| tensor | type | contents |
| --- | --- | --- |
| `layers.N.M.trits` | U8 | matrix M, row by row, five trits a byte as in `hw.linear.trits` |
| `layers.N.M.scale` | F32 | a scale for each of equal runs of rows |
| `layers.N.M.column_scale` | F32 | the same for columns, where there are such |
| `layers.N.G` | F32 | gain G |
| `final_norm` | F32 | the last norm's gain |
| `embedding`, `head` | BF16, F16 or F32 | [vocab, hidden]; no head where it is the embedding |

M and G are the names of `ModelSpec.linear_shapes` and `norm_sizes`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from terntable.host.checkpoints.tensors import FLOATS, TensorFile, read_json
from terntable.host.model import F32, Layer, Model, ModelSpec, TernaryLinear, TextAssets
from terntable.hw.errors import UserError
from terntable.hw.linear.trits import TRITS_PER_BYTE, decode_bytes

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
FORMAT: Literal["terntable model"] = "terntable model"
VERSION: Literal[1] = 1
TRITS_ALIGNMENT = 4
"""Packed matrices are whole words, so that what follows is aligned."""


class Manifest(BaseModel):
    """model.json.

    zeros   weights that are 0
    empty   matrices whose weights are all 0, as in 'up of layer 3'
    crc32   CRC-32 of the bytes of every tensor and of the text files, by name
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["terntable model"] = FORMAT
    version: Literal[1] = VERSION
    origin: str
    warnings: tuple[str, ...] = ()
    spec: ModelSpec
    ternary_weights: int = Field(ge=0)
    zeros: int = Field(ge=0)
    empty: tuple[str, ...] = ()
    table_error: float = Field(default=0, ge=0)
    weights_bytes: int = Field(ge=0)
    crc32: dict[str, int]


def is_bundle(folder: Path) -> bool:
    """Whether a folder says that it is a bundle. Does not raise for one that is damaged."""
    try:
        return read_json(folder / MANIFEST).get("format") == FORMAT
    except UserError:
        return False


def packed_size(rows: int, columns: int) -> int:
    """Bytes of a packed matrix."""
    return -(-rows * columns // (TRITS_PER_BYTE * TRITS_ALIGNMENT)) * TRITS_ALIGNMENT


def open_bundle(folder: Path) -> Model:
    """The model of a bundle. Tables are read and verified now, layers when they are asked for.

    Raises UserError that names the file or the tensor which is missing or damaged.
    """
    manifest = _read_manifest(folder)
    reader = _Reader(folder, manifest)
    spec = manifest.spec
    reader.check_all()
    embedding = reader.tensor("embedding")
    return Model(
        spec,
        reader.layer,
        reader.tensor("final_norm"),
        embedding,
        embedding if spec.tied else reader.tensor("head"),
        source=folder,
        origin=manifest.origin,
        warnings=manifest.warnings,
        text=reader.text,
        table_error=manifest.table_error,
    )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    values = read_json(path)
    version = values.get("version")
    if version != VERSION:
        raise UserError(
            f"{path}: bundle version {version!r}, this release reads {VERSION}: import it again"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where}: {text}: import it again") from None


class _Reader:
    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.spec = folder, manifest, manifest.spec
        path = folder / WEIGHTS
        if not path.is_file():
            raise UserError(f"{path} is missing: import it again")
        if (size := path.stat().st_size) != manifest.weights_bytes:
            raise UserError(
                f"{path}: {size:,} bytes of {manifest.weights_bytes:,}: import it again"
            )
        self.file = TensorFile(path)

    def check_all(self) -> None:
        """Raise UserError unless every tensor is there with its shape and type."""
        spec = self.spec
        for n in range(spec.layers):
            for name, (rows, columns) in spec.linear_shapes.items():
                at = f"layers.{n}.{name}"
                self._check(f"{at}.trits", (packed_size(rows, columns),), ("U8",))
                self._check_scales(f"{at}.scale", rows)
                if f"{at}.column_scale" in self.file.header:
                    self._check_scales(f"{at}.column_scale", columns)
            for name, size in spec.norm_sizes.items():
                self._check(f"layers.{n}.{name}", (size,), ("F32",))
        self._check("final_norm", (spec.hidden,), ("F32",))
        for name in ("embedding",) if spec.tied else ("embedding", "head"):
            self._check(name, (spec.vocab, spec.hidden), FLOATS)

    def _check(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        if name not in self.file.header or name not in self.manifest.crc32:
            raise UserError(f"{self.file.path}: tensor {name} is missing: import it again")
        self.file.check(name, shape, dtypes)

    def _check_scales(self, name: str, length: int) -> None:
        shape = self.file.header.get(name, {}).get("shape", [1])
        blocks = shape[0] if len(shape) == 1 and shape[0] and length % shape[0] == 0 else 1
        self._check(name, (blocks,), ("F32",))

    def tensor(self, name: str) -> NDArray:
        values = self.file.read(name)
        self._verify(
            name, values.reshape(-1).view(np.uint8).data, f"{self.file.path}: tensor {name}"
        )
        return values

    def layer(self, n: int) -> Layer:
        linears = {name: self._linear(n, name) for name in self.spec.linear_shapes}
        gains = {name: self.tensor(f"layers.{n}.{name}") for name in self.spec.norm_sizes}
        return Layer(linears, gains)

    def _linear(self, n: int, name: str) -> TernaryLinear:
        at = f"layers.{n}.{name}"
        rows, columns = self.spec.linear_shapes[name]
        digits = decode_bytes(self.tensor(f"{at}.trits"))[: rows * columns]
        trits = digits.view(np.int8)
        trits -= 1
        scale: F32 = self.tensor(f"{at}.scale")
        across = f"{at}.column_scale"
        return TernaryLinear(
            trits.reshape(rows, columns),
            scale if len(scale) > 1 else scale[0],
            self.tensor(across) if across in self.file.header else None,
        )

    def text(self) -> TextAssets:
        return TextAssets(self._text(TOKENIZER), self._text(CHAT_TEMPLATE))

    def _text(self, name: str) -> str | None:
        path = self.folder / name
        if name not in self.manifest.crc32:
            return None
        try:
            data = path.read_bytes()
            self._verify(name, data, str(path))
            return data.decode("utf-8")
        except (OSError, UnicodeError) as e:
            raise UserError(f"{path}: can't be read: {e}: import it again") from None

    def _verify(self, name: str, data: bytes | memoryview, what: str) -> None:
        if zlib.crc32(data) != self.manifest.crc32[name]:
            raise UserError(f"{what} is damaged: its CRC-32 differs: import it again")
