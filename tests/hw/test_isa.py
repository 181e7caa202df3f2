"""The command table: no overlaps, lossless, blank memory is an error."""

from __future__ import annotations

import random

import pytest

from terntable.hw import isa


@pytest.mark.parametrize("op", isa.Op)
def test_fields_do_not_overlap(op: isa.Op) -> None:
    used: set[int] = set()
    for field in isa.HEADER + isa.FIELDS[op]:
        bits = {32 * field.word + field.lsb + i for i in range(field.bits)}
        assert field.lsb + field.bits <= 32 and field.word < isa.COMMAND_WORDS
        assert not bits & used, field.name
        used |= bits


@pytest.mark.parametrize("op", isa.Op)
def test_encode_then_decode(op: isa.Op) -> None:
    rng = random.Random(op)
    for _ in range(20):
        values: dict[str, int | float] = {
            f.name: rng.randrange(-1000, 1000) / 8 if f.float32 else rng.randrange(1 << f.bits)
            for f in isa.FIELDS[op]
        }
        wait = rng.randrange(32)
        command = isa.decode(isa.encode(op, wait, **values))
        assert (command.op, command.wait, command.values) == (op, wait, values)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="nosuch"):
        isa.encode(isa.Op.END, nosuch=1)
    with pytest.raises(ValueError, match="needs"):
        isa.encode(isa.Op.FETCH, address=0)
    with pytest.raises(ValueError, match="16 bits"):
        isa.encode(isa.Op.LOAD, dest=0, address=0, row_bytes=0, ew=1 << 16, count=0)
    for blank in (bytes(64), b"\xff" * 64):
        with pytest.raises(ValueError, match="no opcode"):
            isa.decode(blank)
    with pytest.raises(ValueError, match="no END"):
        isa.decode_program(isa.encode(isa.Op.CHUNK) * 3)
