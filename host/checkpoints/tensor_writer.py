"""Writes a safetensors file tensor by tensor, each as soon as it is there."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

_TYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.uint16): "BF16",
    np.dtype(np.uint8): "U8",
}
_ENTRY = 160
"""Bytes of a tensor's entry in the header, without its name, at most: two dimensions and two
offsets of 19 digits."""


class TensorWriter:
    """A safetensors file in the making. uint16 is written as bfloat16.

    The header comes first in the file and is known last: room for it is left. crcs maps the names
    of the tensors written to the CRC-32 of their bytes.
    """

    def __init__(self, path: Path, names: Collection[str]) -> None:
        """`names`: all names that may come."""
        self.crcs: dict[str, int] = {}
        self._room = -(-sum(len(n) + _ENTRY for n in names) // 8) * 8
        self._header: dict[str, dict] = {}
        self._at = 0
        self._file: IO[bytes] = path.open("wb")
        self._file.write(bytes(8 + self._room))

    def add(self, name: str, values: NDArray) -> None:
        data = np.ascontiguousarray(values)
        size = data.nbytes
        self._header[name] = {
            "dtype": _TYPES[data.dtype],
            "shape": list(data.shape),
            "data_offsets": [self._at, self._at + size],
        }
        view = data.reshape(-1).view(np.uint8).data
        self.crcs[name] = zlib.crc32(view)
        self._file.write(view)
        self._at += size

    def finish(self) -> None:
        """Write the header, filled up with blanks."""
        text = json.dumps(self._header, separators=(",", ":")).encode()
        if len(text) > self._room:
            raise ValueError(f"a header of {len(text)} bytes, there is room for {self._room}")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + text.ljust(self._room))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
