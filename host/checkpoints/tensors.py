"""safetensors files of a checkpoint folder, read without torch and without mapping them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terntable.host.model import F32, widen
from terntable.hw.errors import UserError

FLOATS = ("F32", "F16", "BF16")
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # bfloat16 as its bits
    "U8": np.dtype("u1"),
}
"""The types of tensors that this program reads."""

_MOST_JSON = 8 << 20
"""Bytes of a header or of a JSON file: hundreds of times what real ones take, and little enough
for a parser's worst case to fit in memory."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class TensorFile:
    """A safetensors file: its header, checked, and its tensors, read when asked for.

    bfloat16 is given as uint16. Every UserError names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as f:
            start = f.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= size - 8:
                raise UserError(f"{path}: not a safetensors file, or cut short")
            if length > _MOST_JSON:
                raise UserError(f"{path}: its safetensors header has {length:,} bytes: damaged")
            text = f.read(length)
        self.header = _parse_header(path, text)
        self._data = 8 + length
        need = self._data + max((t["data_offsets"][1] for t in self.header.values()), default=0)
        if size < need:
            raise UserError(f"{path}: cut short: {size:,} bytes of {need:,}: download it again")

    def check(self, name: str, shape: tuple[int, ...], dtypes: Collection[str]) -> None:
        """Raise UserError unless tensor `name` has this shape and one of these types."""
        entry = self.header[name]
        found = tuple(entry["shape"])
        if entry["dtype"] not in dtypes:
            raise UserError(
                f"{self.path}: tensor {name} has type {entry['dtype']}:"
                f" {' or '.join(dtypes)} is expected"
            )
        if found != shape:
            raise UserError(f"{self.path}: tensor {name} has shape {found}: {shape} is expected")
        begin, end = entry["data_offsets"]
        if end - begin != math.prod(shape) * DTYPES[entry["dtype"]].itemsize:
            raise UserError(
                f"{self.path}: tensor {name} has {end - begin:,} bytes, not its shape's"
            )

    def read(self, name: str) -> NDArray:
        """A tensor that `check` has passed."""
        shape = self.header[name]["shape"]
        return self.read_part(name, 0, math.prod(shape)).reshape(shape)

    def read_part(self, name: str, first: int, count: int) -> NDArray:
        """`count` elements of a tensor, flattened, from element `first` on."""
        entry = self.header[name]
        dtype = DTYPES[entry["dtype"]]
        with self.path.open("rb") as f:
            f.seek(self._data + entry["data_offsets"][0] + first * dtype.itemsize)
            data = np.fromfile(f, dtype, count)
        if data.size != count:
            raise UserError(f"{self.path}: cut short while it was read")
        return data


def _parse_header(path: Path, text: bytes) -> dict[str, dict]:
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            if not (type(begin) is type(end) is int and 0 <= begin <= end < 1 << 63):
                raise ValueError
            if not all(type(n) is int and 0 <= n < 1 << 63 for n in entry["shape"]):
                raise ValueError
            entry["dtype"] = str(entry["dtype"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path}: its safetensors header is damaged") from None
    return header


class Tensors:
    """The tensors of a folder's safetensors files, by name.

    As published code does, `model.safetensors` is taken where it is there, else the files of
    `model.safetensors.index.json`, else all. Pickle is never loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, TensorFile] = {}
        index = folder / "model.safetensors.index.json"
        if (folder / "model.safetensors").is_file() or not index.is_file():
            self._take_all()
        else:
            self._take_named(index)

    def _take_all(self) -> None:
        names = sorted(p.name for p in self.folder.glob("*.safetensors") if p.is_file())
        if "model.safetensors" in names:
            names = ["model.safetensors"]
        if not names:
            pickles = sorted(p.name for p in self.folder.iterdir() if p.suffix in _PICKLES)
            if pickles:
                raise UserError(
                    f"{self.folder}: {pickles[0]} is a pickle file, which can run any code and is"
                    " never loaded: convert it to safetensors"
                )
            raise UserError(f"{self.folder}: no model.safetensors here")
        for file in (TensorFile(self.folder / name) for name in names):
            if twice := self._files.keys() & file.header.keys():
                name = min(twice)
                raise UserError(
                    f"{self.folder}: tensor {name} is in {self._files[name].path.name} and in"
                    f" {file.path.name}: remove one of the files"
                )
            self._files |= dict.fromkeys(file.header, file)

    def _take_named(self, index: Path) -> None:
        named = read_json(index).get("weight_map")
        if not isinstance(named, dict) or not all(
            isinstance(n, str) and n == Path(n).name for n in named.values()
        ):
            raise UserError(f"{index}: its weight_map isn't one of tensor names to file names")
        files = {}
        for name in sorted(set(named.values())):
            if not (self.folder / name).is_file():
                raise UserError(f"{self.folder}: {name} is missing: download it again")
            files[name] = TensorFile(self.folder / name)
        for tensor, name in named.items():
            if tensor in files[name].header:
                self._files[tensor] = files[name]

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def names(self) -> set[str]:
        return set(self._files)

    def check(self, name: str, shape: tuple[int, ...], dtypes: Collection[str] = FLOATS) -> None:
        """Raise UserError unless the tensor is there with this shape and one of these types."""
        self._file(name).check(name, shape, dtypes)

    def dtype(self, name: str) -> str:
        return self._file(name).header[name]["dtype"]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(name).header[name]["shape"])

    def raw(self, name: str) -> NDArray:
        """The tensor as stored."""
        return self._file(name).read(name)

    def raw_part(self, name: str, first: int, count: int) -> NDArray:
        """`count` elements of the flattened tensor from `first` on."""
        return self._file(name).read_part(name, first, count)

    def f32(self, name: str) -> F32:
        """The tensor in binary32. Raises UserError for values that aren't finite."""
        values = widen(self.raw(name))
        if not np.isfinite(values).all():
            raise UserError(f"{self.folder}: tensor {name} has values that aren't finite")
        return values

    def _file(self, name: str) -> TensorFile:
        if name not in self._files:
            raise UserError(f"{self.folder}: tensor {name} is missing")
        return self._files[name]


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError for anything else."""
    try:
        with path.open("rb") as f:
            text = f.read(_MOST_JSON + 1)
        if len(text) > _MOST_JSON:
            raise UserError(f"{path}: over {_MOST_JSON:,} bytes: not such a file")
        value = json.loads(text.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as e:  # ValueError: no UTF-8, no JSON
        raise UserError(f"{path}: can't be read as JSON: {e}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is expected")
    return value
