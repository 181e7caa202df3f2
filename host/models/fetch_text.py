"""Fetch the training text of the demo model: six novels by Jane Austen (public domain).

The novels come from Debian's package ``r-cran-janeaustenr``. The package is downloaded with
``apt-get`` (or given with ``--package``), unpacked without R, cleaned and split: the last 3 % of
every novel goes to the held-out file, the rest, joined by ``<|endoftext|>``, to the training file.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

PACKAGE = "r-cran-janeaustenr"
SEPARATOR = "<|endoftext|>"
_CHARACTER_VECTOR = 16
_HEADER_V3 = 14  # "X\n", three version words; a string with the native encoding follows


def ar_member(archive: bytes, prefix: str) -> tuple[str, bytes]:
    """Return name and content of the first member of an ``ar`` archive starting with ``prefix``."""
    if not archive.startswith(b"!<arch>\n"):
        raise ValueError("not an ar archive")
    at = 8
    while at + 60 <= len(archive):
        name = archive[at : at + 16].decode("ascii").rstrip(" /")
        size = int(archive[at + 48 : at + 58])
        if name.startswith(prefix):
            return name, archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError(f"the archive has no member {prefix}*")


def character_vector(data: bytes) -> list[str]:
    """Decode one serialised R character vector (binary format, version 3)."""
    if data[:6] != b"X\n\0\0\0\3":
        raise ValueError("not an R serialisation of version 3")
    at = _HEADER_V3 + 4 + struct.unpack_from(">i", data, _HEADER_V3)[0]
    flags, count = struct.unpack_from(">ii", data, at)
    if flags & 0xFF != _CHARACTER_VECTOR:
        raise ValueError("not a character vector")
    at += 8
    lines = []
    for _ in range(count):
        length = struct.unpack_from(">i", data, at + 4)[0]
        at += 8
        lines.append(data[at : at + max(length, 0)].decode("utf-8"))
        at += max(length, 0)
    return lines


def novels(package: bytes) -> list[list[str]]:
    """Return the printed lines of every novel in the Debian package."""
    _, content = ar_member(package, "data.tar")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = next((m for m in tar.getmembers() if m.name.endswith("data/Rdata.rdb")), None)
        handle = tar.extractfile(member) if member else None
        if handle is None:
            raise ValueError("the package holds no R data base")
        base = handle.read()
    books = []
    while base:  # a chain of records: big-endian length, zlib stream
        stream = zlib.decompressobj()
        books.append(character_vector(stream.decompress(base[4:])))
        base = stream.unused_data
    return books


def clean(lines: list[str]) -> list[str]:
    """Turn printed lines into paragraphs, one string each, without typographic marks."""
    text = "\n".join(line.strip() for line in lines).replace("_", "")
    text = text.split("A NOTE ON THE TEXT")[0]
    paragraphs = (re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text))
    return [part for part in paragraphs if re.search(r"\w", part)]


def split(paragraphs: list[str], held_out: float) -> tuple[str, str]:
    """Split a novel at a paragraph: the last ``held_out`` part of its characters is second."""
    budget = held_out * sum(len(part) + 1 for part in paragraphs)
    cut = len(paragraphs)
    while cut > 0 and budget >= len(paragraphs[cut - 1]) + 1:
        cut -= 1
        budget -= len(paragraphs[cut]) + 1
    return "\n".join(paragraphs[:cut]) + "\n", "\n".join(paragraphs[cut:]) + "\n"


def download() -> bytes:
    """Download the package with ``apt-get`` and return its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        return next(Path(folder).glob(f"{PACKAGE}_*.deb")).read_bytes()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, help="use this .deb instead of downloading it")
    parser.add_argument("--train", type=Path, required=True, help="training text to write")
    parser.add_argument("--heldout", type=Path, required=True, help="held-out text to write")
    parser.add_argument("--part", type=float, default=0.03, help="part of each novel held out")
    args = parser.parse_args()
    if not 0 < args.part < 1:
        parser.error("--part lies between 0 and 1")
    package = args.package.read_bytes() if args.package else download()
    parts = [split(clean(lines), args.part) for lines in novels(package)]
    args.train.write_text(SEPARATOR.join(train for train, _ in parts), encoding="utf-8")
    args.heldout.write_text("".join(held for _, held in parts), encoding="utf-8")
    for path in (args.train, args.heldout):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
