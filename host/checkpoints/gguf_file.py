"""GGUF files: a header of metadata and tensor descriptions, and the tensors, mapped.

Versions 2 and 3, little endian, in one file or split over several (`-00001-of-00003.gguf`).
Opening reads the header alone; a tensor's bytes are a view of the mapped file.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terntable.host.checkpoints.gguf_metadata import Cursor, Metadata, read_metadata
from terntable.hw.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_TENSORS = 1 << 17
MAX_SPLITS = 1 << 10
I2_S = 36
I2_S_TAIL = 32


@dataclass(frozen=True)
class TensorType:
    """`elements` values of a row take `size` bytes."""

    name: str
    elements: int
    size: int


TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    20: TensorType("IQ4_NL", 32, 18),
    23: TensorType("IQ4_XS", 256, 136),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    I2_S: TensorType("I2_S", 128, 32),
}
"""Tensor types by number. Blocks lie in rows; those of I2_S in the whole tensor, with a tail."""
_OTHERS = {
    37: "I8_S of bitnet.cpp",
    38: "TL1 of bitnet.cpp",
    39: "TL2 of bitnet.cpp, or MXFP4",
    42: "one of two unlike formats named Q2_0",
}
"""Numbers with meanings that differ between programs, or that hold a machine's own layout."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    shape  as NumPy has it, the fastest dimension last (files have it first)
    data   uint8, its bytes
    spare  bytes between its padded end and the next tensor
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    type: TensorType
    number: int
    data: NDArray[np.uint8]
    spare: int

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: tensor {self.name} {what}")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError unless the shape is this one."""
        if self.shape != shape:
            raise self.wrong(f"has shape {self.shape}: {shape} is expected")


class GgufFile:
    """One file: its metadata and its tensors by name."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < 24:
            raise UserError(f"{path}: not a GGUF file, or cut short")
        self._mapped = np.memmap(path, np.uint8, "r")
        cursor = Cursor(path, self._mapped.data)
        if bytes(cursor.take(4, "the magic")) != MAGIC:
            raise UserError(f"{path}: not a GGUF file")
        self.path = path
        self.version = self._check_version(cursor.u32("the version"))
        tensors, keys = cursor.u64("the number of tensors"), cursor.u64("the number of keys")
        if tensors > MAX_TENSORS:
            raise cursor.damaged(f"{tensors:,} tensors")
        self.metadata = Metadata(path, read_metadata(cursor, keys))
        self.tensors = self._read_tensors(cursor, tensors)

    def _check_version(self, version: int) -> int:
        if version in VERSIONS:
            return version
        if version and not version & 0xFFFF:
            raise UserError(
                f"{self.path}: a big-endian GGUF file: convert it to little endian with the gguf"
                " package's gguf-convert-endian"
            )
        known = " and ".join(map(str, VERSIONS))
        raise UserError(f"{self.path}: GGUF version {version}: {known} are supported")

    def _read_tensors(self, cursor: Cursor, count: int) -> dict[str, Tensor]:
        alignment = self.metadata.integer("general.alignment", 32)
        if not (0 < alignment <= 1 << 20 and alignment % 8 == 0):
            raise cursor.damaged(f"general.alignment is {alignment}")
        entries = [self._read_entry(cursor) for _ in range(count)]
        start = -(-cursor.at // alignment) * alignment
        space = max(len(self._mapped) - start, 0)
        ends = sorted({offset for _, _, _, offset in entries} | {space})
        after = dict(itertools.pairwise(ends))
        tensors: dict[str, Tensor] = {}
        for name, shape, number, offset in entries:
            kind = TYPES[number]
            size = self._size(name, shape, number)
            if name in tensors:
                raise cursor.damaged(f"tensor {name} comes twice")
            if offset % alignment:
                raise cursor.damaged(f"tensor {name} is not aligned")
            if offset + size > space:
                raise UserError(
                    f"{self.path}: cut short: tensor {name} ends at byte {start + offset + size:,}"
                    f" of {len(self._mapped):,}: download it again"
                )
            room = after.get(offset, space) - offset
            if size > room:
                raise UserError(
                    f"{self.path}: tensor {name} has {room:,} bytes, not the {size:,} that"
                    f" {kind.name} of shape {shape} takes"
                )
            at = start + offset
            data = np.asarray(self._mapped[at : at + size])
            spare = max(room - -(-size // alignment) * alignment, 0)
            tensors[name] = Tensor(self.path, name, shape, kind, number, data, spare)
        return tensors

    def _read_entry(self, cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
        """(name, shape, type, offset) of the tensor described at the cursor."""
        name = cursor.name("a tensor's name")
        dimensions = cursor.u32(f"the dimensions of {name}")
        if not 1 <= dimensions <= 4:
            raise cursor.damaged(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(cursor.u64(f"the shape of {name}") for _ in range(dimensions))[::-1]
        number = cursor.u32(f"the type of {name}")
        if number not in TYPES:
            known = ", ".join(f"{kind.name} {n}" for n, kind in TYPES.items())
            meaning = f" ({_OTHERS[number]})" if number in _OTHERS else ""
            raise UserError(
                f"{self.path}: tensor {name} has type {number}{meaning}: {known} are known"
            )
        return name, shape, number, cursor.u64(f"the place of {name}")

    def _size(self, name: str, shape: tuple[int, ...], number: int) -> int:
        """Bytes of a tensor."""
        kind, count = TYPES[number], math.prod(shape)
        if not count:
            raise UserError(f"{self.path}: tensor {name} has shape {shape}: it is empty")
        whole = count if number == I2_S else shape[-1]
        if whole % kind.elements:
            raise UserError(
                f"{self.path}: tensor {name} has shape {shape}: {kind.name} has blocks of"
                f" {kind.elements}"
            )
        return count // kind.elements * kind.size + (I2_S_TAIL if number == I2_S else 0)


class Gguf:
    """A model's GGUF files as one: the metadata of the first, the tensors of all."""

    def __init__(self, path: Path) -> None:
        first = GgufFile(path)
        splits = first.metadata.integer("split.count", 1)
        files = [first]
        if splits > 1:
            files = [
                first if each == path else GgufFile(each) for each in self._parts(path, splits)
            ]
        self.path, self.version = path, first.version
        self.metadata = files[0].metadata
        self.tensors: dict[str, Tensor] = {}
        for file in files:
            if both := self.tensors.keys() & file.tensors.keys():
                raise UserError(f"{file.path}: tensor {min(both)} is in another part too")
            self.tensors |= file.tensors

    @staticmethod
    def _parts(path: Path, count: int) -> list[Path]:
        """All files of a split model, of which `path` is one."""
        match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", path.stem)
        if match is None or int(match[2]) != count or count > MAX_SPLITS:
            raise UserError(
                f"{path}: one of {count} files: name it NAME-00001-of-{count:05}.gguf again"
            )
        parts = [
            path.with_name(f"{match[1]}-{n + 1:05}-of-{count:05}{path.suffix}")
            for n in range(count)
        ]
        if missing := [part for part in parts if not part.is_file()]:
            raise UserError(f"{missing[0]} is missing: the model has {count} files")
        return parts

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UserError(f"{self.path}: tensor {name} is missing")
        return self.tensors[name]


def is_gguf(path: Path) -> bool:
    """Whether this is a file that starts as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as f:
        return f.read(len(MAGIC)) == MAGIC


def find_gguf(folder: Path) -> Path | None:
    """The one GGUF model of a folder: a file, or the first file of a split model.

    None where there is none; UserError where there are several.
    """
    files = sorted(f for f in folder.glob("*.gguf") if f.is_file())
    models = [f for f in files if not re.search(r"-(?!00001)\d{5}-of-\d{5}$", f.stem)]
    if len(models) > 1:
        raise UserError(f"{folder}: it holds {len(models)} GGUF models: name one, {models[0]}")
    return next(iter(models or files), None)
