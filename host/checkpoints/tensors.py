"""safetensors files of a checkpoint folder, mapped and read without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terntable.host.model import F32, widen
from terntable.hw.errors import UserError

_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # bfloat16 as its bits
    "U8": np.dtype("u1"),
}


class TensorFile:
    """A safetensors file, mapped; tensors are views of it. bfloat16 is given as uint16."""

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as f:
            start = f.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, 100_000_000):
                raise UserError(f"{path}: not a safetensors file, or cut short")
            text = f.read(length)
        try:
            header = json.loads(text)
            header.pop("__metadata__", None)
            for entry in header.values():
                begin, end = entry["data_offsets"]
                if not (type(begin) is type(end) is int and 0 <= begin <= end):
                    raise ValueError
                if not all(type(n) is int and n >= 0 for n in entry["shape"]):
                    raise ValueError
                entry["dtype"] = str(entry["dtype"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(f"{path}: its safetensors header is damaged") from None
        self.path = path
        self.header: dict[str, dict] = header
        need = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        if size < need:
            raise UserError(f"{path}: cut short: {size} bytes of {need}: download it again")
        self._data = np.memmap(path, np.uint8, "r", 8 + length) if size > 8 + length else None

    def tensor(self, name: str) -> NDArray:
        entry = self.header[name]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None or self._data is None:
            raise UserError(
                f"{self.path}: tensor {name} has type {entry['dtype']}:"
                f" {', '.join(_DTYPES)} are supported"
            )
        begin, end = entry["data_offsets"]
        count = math.prod(entry["shape"])
        if end - begin != count * dtype.itemsize:
            raise UserError(f"{self.path}: tensor {name} has {end - begin} bytes, not its shape's")
        return np.asarray(self._data[begin:end]).view(dtype).reshape(entry["shape"])


class Tensors:
    """The tensors of a folder's safetensors files, by name."""

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            named = read_json(index).get("weight_map")
            if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
                raise UserError(f"{index}: its weight_map isn't one of names to files")
            names = sorted(set(named.values()))
            if missing := [n for n in names if not (folder / n).is_file()]:
                raise UserError(f"{folder}: {missing[0]} is missing: download it again")
        else:
            names = sorted(p.name for p in folder.glob("*.safetensors") if p.is_file())
        if not names:
            raise UserError(f"{folder}: no model.safetensors here")
        self.folder = folder
        self._files: dict[str, TensorFile] = {}
        for name in names:
            file = TensorFile(folder / name)
            self._files |= dict.fromkeys(file.header, file)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise UserError unless the tensor is there with this shape."""
        if name not in self._files:
            raise UserError(f"{self.folder}: tensor {name} is missing")
        found = tuple(self._files[name].header[name]["shape"])
        if found != shape:
            raise UserError(f"{self.folder}: tensor {name} has shape {found}, not {shape}")

    def raw(self, name: str) -> NDArray:
        return self._files[name].tensor(name)

    def dtype(self, name: str) -> str:
        return self._files[name].header[name]["dtype"]

    def f32(self, name: str) -> F32:
        return widen(self.raw(name))


def read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:  # ValueError: no UTF-8, no JSON
        raise UserError(f"{path}: can't be read as JSON: {e}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is expected")
    return value
