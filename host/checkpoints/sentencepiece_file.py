"""SentencePiece's `tokenizer.model`: a protocol-buffers message, of which a few fields are read.

ModelProto: 1 pieces (1 piece, 2 score, 3 type), 2 TrainerSpec (3 model_type, 24
treat_whitespace_as_suffix, 40 unk_id, 41 bos_id, 42 eos_id), 3 NormalizerSpec (2
precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5 escape_whitespaces).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from terntable.hw.errors import UserError

UNIGRAM, BPE = 1, 2
_MODEL_TYPES = {UNIGRAM: "unigram", BPE: "BPE", 3: "word", 4: "char"}
_MAX_SIZE = 1 << 28


@dataclass
class SentencePieceModel:
    """A model's fields, with the format's defaults. An id of -1 is none."""

    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    model_type: int = UNIGRAM
    unknown: int = 0
    bos: int = 1
    eos: int = 2
    charsmap: bytes = b""
    prefix: bool = True
    collapse: bool = True


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a file. Raises UserError if it is damaged or of a kind that isn't supported."""
    try:
        if path.stat().st_size > _MAX_SIZE:
            raise ValueError("too large")
        model = _parse(memoryview(path.read_bytes()))
    except OSError as e:
        raise UserError(f"{path}: can't be read: {e.strerror}") from None
    except (ValueError, struct.error) as e:
        raise UserError(f"{path}: no SentencePiece model, or damaged: {e}") from None
    if model.model_type not in (UNIGRAM, BPE):
        kind = _MODEL_TYPES.get(model.model_type, model.model_type)
        raise UserError(f"{path}: a SentencePiece model of type {kind}: BPE and unigram are known")
    return model


def _parse(data: memoryview) -> SentencePieceModel:
    model = SentencePieceModel()
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_message(value)))
            model.tokens.append(bytes(_message(piece.get(1, memoryview(b"")))).decode())
            model.scores.append(_single(piece.get(2, 0)))
            model.kinds.append(_integer(piece.get(3, 1)))
        elif number == 2:
            spec = dict(_fields(_message(value)))
            model.model_type = _integer(spec.get(3, model.model_type))
            model.unknown = _integer(spec.get(40, model.unknown))
            model.bos = _integer(spec.get(41, model.bos))
            model.eos = _integer(spec.get(42, model.eos))
            if _integer(spec.get(24, 0)):
                raise ValueError("spaces behind words (treat_whitespace_as_suffix)")
        elif number == 3:
            spec = dict(_fields(_message(value)))
            model.charsmap = bytes(_message(spec.get(2, memoryview(b""))))
            model.prefix = bool(_integer(spec.get(3, 1)))
            model.collapse = bool(_integer(spec.get(4, 1)))
            if not _integer(spec.get(5, 1)):
                raise ValueError("spaces that stay spaces (escape_whitespaces is false)")
    if not model.tokens:
        raise ValueError("it has no pieces")
    return model


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message's fields: an integer's value, or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(data) - at:
            raise ValueError("cut short")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at`, seven bits a byte from the lowest, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("an integer of over ten bytes")


def _integer(value: int | memoryview) -> int:
    """A 32-bit integer; negative ones are sign-extended to 64 bits in the file."""
    if not isinstance(value, int):
        raise ValueError("bytes where an integer belongs")
    value &= 0xFFFFFFFF
    return value - (value >> 31 << 32)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("an integer where bytes belong")
    return value


def _single(value: int | memoryview) -> float:
    return 0.0 if value == 0 else float(struct.unpack("<f", _message(value))[0])
