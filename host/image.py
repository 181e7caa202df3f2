"""The DRAM image: everything that the accelerator reads, its map, its file.

An image has constant regions (each with a CRC-32) below `write_base` and run-time regions above.
All regions are aligned to 64 bytes; offsets are bytes from the image's base.

| region      | contents                                                                     |
| ----------- | ---------------------------------------------------------------------------- |
| header      | magic, version, configuration hash, size, write base, program's offset       |
| program     | commands of 64 bytes                                                         |
| rope        | a row a position: cosine and sine of each pair, binary32                      |
| gains       | norm gains in the order of use, binary32 rows                                |
| head_scales | scale of each vocabulary row, binary32                                       |
| weights     | ternary weights of all layers in the engine's order, a part a port           |
| head        | digit planes of the LM head, the same way                                    |
| input       | rows of the residual stream that the host writes, binary32 [tokens, input_width] |
| logits      | binary32 [vocab]                                                             |
| kv          | KV cache                                                                     |
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terntable.hw.config import AcceleratorConfig
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terntable.host.model import ModelSpec

ALIGNMENT = 64
MOST_BYTES = 1 << 32
"""Offsets within an image have 32 bits."""
MAGIC = b"TERNIMG\0"
VERSION = 2
HEADER = struct.Struct("<8sIIQQQ")
"""magic, version, configuration hash, size, write base, offset of the program"""
RUNTIME_REGIONS = ("input", "logits", "kv")


def align(n: int, to: int = ALIGNMENT) -> int:
    return -(-n // to) * to


@dataclass(frozen=True)
class Region:
    """A named range of the image. Run-time regions have no CRC."""

    name: str
    offset: int
    size: int
    crc32: int | None = None

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class Image:
    """A compiled model.

    data       uint8 [write_base]: the constant regions; the run-time regions start as zeros
    embedding  [vocab, hidden], binary32, or bfloat16 as uint16
    context    positions that the KV cache and the RoPE rows cover
    head_error relative root mean square of the LM head's quantisation
    kv         format of K and V in region `kv`
    """

    config: AcceleratorConfig
    spec: ModelSpec
    data: NDArray[np.uint8]
    regions: dict[str, Region]
    embedding: NDArray[np.float32] | NDArray[np.uint16]
    context: int
    head_error: float = 0.0
    kv: KvFormat = KvFormat.INT16

    @property
    def write_base(self) -> int:
        """Lowest offset that the accelerator may write."""
        return self.regions[RUNTIME_REGIONS[0]].offset

    @property
    def size(self) -> int:
        """Bytes of the whole image: the accelerator's LIMIT."""
        return align(max(r.end for r in self.regions.values()))

    @property
    def program(self) -> int:
        """Offset of the program: the accelerator's PROGRAM."""
        return self.regions["program"].offset

    @property
    def input_width(self) -> int:
        """binary32 numbers of a row of region `input`: hidden, padded to whole bus words."""
        per_word = max(self.config.lanes, self.config.bus_bytes // 4)
        return align(self.spec.hidden, per_word)

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Rows for region `input`, [len(tokens), input_width], to be written from its start."""
        ids = np.asarray(tokens, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.spec.vocab):
            bad = ids[(ids < 0) | (ids >= self.spec.vocab)][0]
            raise UserError(f"token {bad} is not in the vocabulary (0..{self.spec.vocab - 1})")
        rows = np.zeros((len(ids), self.input_width), np.float32)
        picked = self.embedding[ids]
        if picked.dtype == np.uint16:
            picked = (picked.astype(np.uint32) << 16).view(np.float32)
        rows[:, : self.spec.hidden] = picked
        return rows

    def region(self, name: str) -> NDArray[np.uint8]:
        """Bytes of a constant region."""
        r = self.regions[name]
        return self.data[r.offset : r.end]

    def check(self) -> None:
        """Raise UserError for a constant region whose CRC-32 differs or a foreign header."""
        for r in self.regions.values():
            if r.crc32 is not None and crc32(self.region(r.name)) != r.crc32:
                raise UserError(
                    f"image region {r.name!r} is damaged, its CRC-32 differs: compile the model"
                    " again"
                )
        magic, version, config_hash, *_ = HEADER.unpack_from(self.region("header").tobytes())
        if magic != MAGIC or version != VERSION or config_hash != self.config.hash:
            raise UserError("the image's header does not match its configuration")

    def describe(self) -> str:
        """The map as text: a line a region."""
        lines = [f"{'region':<12}{'offset':>12}{'bytes':>14}  CRC-32"]
        for r in self.regions.values():
            crc = "-" if r.crc32 is None else f"{r.crc32:08x}"
            lines.append(f"{r.name:<12}{r.offset:>#12x}{r.size:>14,}  {crc}")
        bits = self.regions["weights"].size * 8 / max(self.spec.ternary_weights, 1)
        lines.append(
            f"{self.size:,} bytes, writable from {self.write_base:#x}; {self.context} positions,"
            f" K and V in {self.kv.label};"
            f" {bits:.3f} bits per ternary weight; LM head quantised to within"
            f" {100 * self.head_error:.2f} %"
        )
        return "\n".join(lines)

    def save(self, path: Path | str) -> None:
        """Write the image to one file, which appears whole or not at all."""
        path = Path(path)
        embedding = np.ascontiguousarray(self.embedding)
        meta = {
            "config": self.config.model_dump(),
            "spec": self.spec.model_dump(),
            "regions": [asdict(r) for r in self.regions.values()],
            "context": self.context,
            "head_error": self.head_error,
            "kv": self.kv.label,
            "embedding": {
                "dtype": embedding.dtype.str,
                "shape": list(embedding.shape),
                "crc32": crc32(embedding),
            },
        }
        text = json.dumps(meta).encode()
        head = struct.pack("<8sII", MAGIC, VERSION, len(text)) + struct.pack("<I", zlib.crc32(text))
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as f:
                f.write(head + text)
                f.write(b"\0" * (align(f.tell()) - f.tell()))
                self.data.tofile(f)
                embedding.tofile(f)
                f.flush()
                os.fsync(f.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str) -> Image:
        """Map an image file. Raises UserError for a file that is none, cut short or damaged."""
        from terntable.host.model import ModelSpec

        path = Path(path)
        if not path.is_file():
            raise UserError(f"no image file {str(path)!r}")
        with path.open("rb") as f:
            head = f.read(20)
            if len(head) < 20 or head[:8] != MAGIC:
                raise UserError(f"{path}: not an image file")
            version, length, crc = struct.unpack("<III", head[8:])
            if version != VERSION:
                raise UserError(
                    f"{path}: image version {version}, this release reads {VERSION}: compile again"
                )
            text = f.read(length)
        if len(text) != length or zlib.crc32(text) != crc:
            raise UserError(f"{path}: the image file is damaged or cut short: compile again")
        meta = json.loads(text)
        config = AcceleratorConfig.model_validate(meta["config"])
        regions = {r["name"]: Region(**r) for r in meta["regions"]}
        start = align(20 + length)
        data_size = regions[RUNTIME_REGIONS[0]].offset
        dtype, shape = np.dtype(meta["embedding"]["dtype"]), tuple(meta["embedding"]["shape"])
        if path.stat().st_size != start + data_size + dtype.itemsize * int(np.prod(shape)):
            raise UserError(f"{path}: the image file is cut short: compile again")
        data = np.memmap(path, np.uint8, "r", start, (data_size,))
        embedding = np.memmap(path, dtype, "r", start + data_size, shape)
        image = cls(
            config,
            ModelSpec.model_validate(meta["spec"]),
            data,
            regions,
            embedding,
            meta["context"],
            meta["head_error"],
            KvFormat[meta["kv"].upper()],
        )
        image.check()
        if crc32(embedding) != meta["embedding"]["crc32"]:
            raise UserError(f"{path}: the embedding is damaged: its CRC-32 differs")
        return image


def crc32(data: NDArray) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
