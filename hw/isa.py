"""Commands of the program, as data: encoder, decoder, gateware and documentation read this table.

A command is sixteen little-endian 32-bit words (64 bytes). Word 0 is the header: opcode in bits
7:0, the wait mask in bits 15:8 (one bit a unit: the command is not handed out before these units
are idle). Addresses are byte offsets from the image's base. `EW` stands for elementwise words, of
`lanes` elements each.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

COMMAND_BYTES = 64
COMMAND_WORDS = 16


class Unit(enum.IntEnum):
    """Units that execute commands; the value is the bit of the wait mask."""

    FETCH = 0
    LOAD = 1
    VECTOR = 2
    LINEAR = 3
    ATTENTION = 4


class Op(enum.IntEnum):
    """Opcodes. Zero and all ones are no commands, so that blank memory is an error."""

    END = 0x01
    CHUNK = 0x02
    FETCH = 0x10
    LOAD = 0x20
    NORM_QUANT = 0x30
    KV_QUANT = 0x31
    LINEAR = 0x40
    ATTENTION = 0x50


class Dest(enum.IntEnum):
    """What a LOAD fills."""

    RESIDUAL = 0
    ROPE = 1
    GAIN = 2
    SCALE = 3


class Source(enum.IntEnum):
    """Row memory that NORM_QUANT reads."""

    RESIDUAL = 0  # X
    ROW = 1  # F: what LINEAR or ATTENTION has written there


class Mode(enum.IntEnum):
    """What the elementwise pipeline does with the sums of a linear."""

    PLAIN = 0  # row <- y
    RESIDUAL = 1  # residual <- residual + y
    QKV = 2  # row <- RoPE(y) on the segments that ask for it
    GLU_RELU2 = 3  # row <- relu(gate)^2 * up, gate and up on adjacent weight rows
    GLU_SILU = 4  # row <- silu(gate) * up
    HEAD = 5  # logits <- digit planes combined


class KvFormat(enum.IntEnum):
    """Codes of K and V in the KV cache."""

    INT16 = 0
    INT8 = 1
    INT4 = 2

    @property
    def bits(self) -> int:
        return 16 >> self

    @property
    def code_max(self) -> int:
        """Largest magnitude of a code; the range is symmetric."""
        return (1 << (self.bits - 1)) - 1

    @property
    def label(self) -> str:
        """The format as users write it."""
        return self.name.lower()


@dataclass(frozen=True)
class Field:
    """Bits `lsb` and up of word `word`; `float32` fields take a whole word."""

    name: str
    word: int
    lsb: int
    bits: int
    doc: str
    float32: bool = False


def _f(name: str, word: int, doc: str) -> Field:
    return Field(name, word, 0, 32, doc, float32=True)


HEADER = (
    Field("op", 0, 0, 8, "opcode"),
    Field("wait", 0, 8, 8, "units to be idle before this command is handed out"),
)

FIELDS: dict[Op, tuple[Field, ...]] = {
    Op.END: (),
    Op.CHUNK: (),
    Op.FETCH: (
        Field("address", 1, 0, 32, "offset of port 0's part of the weight stream"),
        Field("port_stride", 2, 0, 32, "bytes between the parts of two ports"),
        Field("beats", 3, 0, 32, "beats on each port"),
        Field("words", 4, 0, 32, "weight words in these beats; the rest is padding"),
    ),
    Op.LOAD: (
        Field("dest", 0, 16, 2, "Dest"),
        Field("address", 1, 0, 32, "offset of the first row"),
        Field(
            "row_bytes",
            2,
            0,
            32,
            "bytes between rows (RESIDUAL: rows start at the first token of the call; ROPE: at"
            " position 0)",
        ),
        Field("ew", 3, 0, 16, "EW of a row; not used for SCALE"),
        Field("count", 4, 0, 32, "SCALE: number of scales"),
    ),
    Op.NORM_QUANT: (
        Field("source", 0, 16, 2, "Source"),
        Field("norm", 0, 18, 1, "divide by the root mean square"),
        Field("gain", 0, 19, 1, "multiply by the gain row"),
        Field("head", 0, 20, 1, "last token only, in head_digits digits on rows 0 and up"),
        Field("follow", 0, 21, 1, "take rows as the LINEAR in progress finishes them"),
        Field("ew", 1, 0, 16, "EW of a row"),
        _f("inv_n", 2, "1 / number of elements (without padding)"),
        _f("eps", 3, "epsilon of the norm"),
    ),
    Op.KV_QUANT: (
        Field("format", 0, 16, 2, "KvFormat of K and V; Q is int16"),
        Field("heads_per_kv", 1, 0, 8, "query heads of a KV head"),
        Field("kv_heads", 1, 8, 8, "KV heads"),
        Field("head_ew", 1, 16, 8, "EW of a padded head"),
        _f("score_scale", 2, "log2(e) / sqrt(head_dim), folded into the scale of Q"),
        Field("address", 3, 0, 32, "offset of this layer's KV records, port 0"),
        Field("head_stride", 4, 0, 32, "bytes between KV heads"),
        Field("port_stride", 5, 0, 32, "bytes between the parts of two ports"),
        Field("record_bytes", 6, 0, 16, "bytes of a record, whole beats"),
    ),
    Op.LINEAR: (
        Field("mode", 0, 16, 3, "Mode"),
        Field("single", 0, 19, 1, "head: head_digits rows rather than the chunk's tokens"),
        Field("follow", 0, 20, 1, "take activations as the NORM_QUANT in progress makes them"),
        Field("k_tiles", 1, 0, 16, "K tiles of a row"),
        Field("tile_words", 1, 16, 16, "weight words (Q rows each) of a full tile, per K tile"),
        Field("tiles", 2, 0, 16, "tiles, the last one included"),
        Field("last_words", 2, 16, 16, "weight words of the last tile, per K tile"),
        Field("out_rows", 3, 0, 32, "rows that are written: a multiple of lanes (HEAD: of planes)"),
        Field("segment0", 4, 0, 16, "EW (of rows) where segment 1 begins"),
        Field("segment1", 4, 16, 16, "EW (of rows) where segment 2 begins"),
        Field("rope", 5, 0, 3, "QKV: segments that are rotated, a bit each"),
        Field("head_ew", 5, 8, 8, "QKV: EW of a padded head"),
        Field("planes", 5, 16, 3, "HEAD: rows of a vocabulary entry; 0 in other modes"),
        _f("scale0_even", 6, "weight scale of segment 0, even rows"),
        _f("scale0_odd", 7, "weight scale of segment 0, odd rows"),
        _f("scale1_even", 8, "weight scale of segment 1, even rows"),
        _f("scale1_odd", 9, "weight scale of segment 1, odd rows"),
        _f("scale2_even", 10, "weight scale of segment 2, even rows"),
        _f("scale2_odd", 11, "weight scale of segment 2, odd rows"),
        Field("address", 12, 0, 32, "HEAD: offset of the logits, binary32"),
        Field(
            "first_row",
            13,
            0,
            24,
            "where the results begin: a multiple of lanes, segments count from row 0 all the same."
            " Of the commands that make a row of F or X the first has 0 here. HEAD: 0",
        ),
    ),
    Op.ATTENTION: (
        Field("format", 0, 16, 2, "KvFormat, that of the KV_QUANTs that wrote the records"),
        Field("heads_per_kv", 1, 0, 8, "query heads of a KV head"),
        Field("kv_heads", 1, 8, 8, "KV heads"),
        Field("head_dims", 1, 16, 16, "dimensions of a padded head"),
        Field("address", 3, 0, 32, "offset of this layer's KV records, port 0"),
        Field("head_stride", 4, 0, 32, "bytes between KV heads"),
        Field("port_stride", 5, 0, 32, "bytes between the parts of two ports"),
        Field("record_bytes", 6, 0, 16, "bytes of a record, whole beats"),
    ),
}

UNIT_OF: dict[Op, Unit] = {
    Op.FETCH: Unit.FETCH,
    Op.LOAD: Unit.LOAD,
    Op.NORM_QUANT: Unit.VECTOR,
    Op.KV_QUANT: Unit.VECTOR,
    Op.LINEAR: Unit.LINEAR,
    Op.ATTENTION: Unit.ATTENTION,
}

PLANES = (5, 4)
"""Numbers of balanced-ternary planes that an LM head's weights can have, the most significant
first: five make -121..121, four -40..40."""


def wait_mask(*units: Unit) -> int:
    return sum(1 << u for u in units)


def encode(op: Op, wait: int = 0, **values: int | float) -> bytes:
    """One command. Raises ValueError for a missing, unknown or oversized field."""
    words = [0] * COMMAND_WORDS
    fields = {f.name: f for f in HEADER + FIELDS[op]}
    given = {"op": int(op), "wait": wait, **values}
    if unknown := given.keys() - fields.keys():
        raise ValueError(f"{op.name} has no field {', '.join(sorted(unknown))}")
    if missing := fields.keys() - given.keys():
        raise ValueError(f"{op.name} needs {', '.join(sorted(missing))}")
    for name, field in fields.items():
        value = given[name]
        if field.float32:
            bits = struct.unpack("<I", struct.pack("<f", value))[0]
        else:
            bits = int(value)
            if not 0 <= bits < 1 << field.bits:
                raise ValueError(f"{op.name}.{name} is {bits}: it has {field.bits} bits")
        words[field.word] |= bits << field.lsb
    return struct.pack(f"<{COMMAND_WORDS}I", *words)


@dataclass(frozen=True)
class Command:
    """A decoded command."""

    op: Op
    wait: int
    values: dict[str, int | float]

    def __getitem__(self, name: str) -> int:
        return self.values[name]  # type: ignore[return-value]


def decode(data: bytes) -> Command:
    """The command in 64 bytes. Raises ValueError when it is none."""
    words = struct.unpack(f"<{COMMAND_WORDS}I", data)
    try:
        op = Op(words[0] & 0xFF)
    except ValueError:
        raise ValueError(f"{words[0] & 0xFF:#04x} is no opcode") from None
    values: dict[str, int | float] = {}
    for field in FIELDS[op]:
        bits = (words[field.word] >> field.lsb) & ((1 << field.bits) - 1)
        values[field.name] = (
            struct.unpack("<f", struct.pack("<I", bits))[0] if field.float32 else bits
        )
    return Command(op, (words[0] >> 8) & 0xFF, values)


def decode_program(data: bytes) -> list[Command]:
    """Commands up to and with END. Raises ValueError when a command is none or END is missing."""
    commands = []
    for at in range(0, len(data) - COMMAND_BYTES + 1, COMMAND_BYTES):
        commands.append(decode(data[at : at + COMMAND_BYTES]))
        if commands[-1].op is Op.END:
            return commands
    raise ValueError("the program has no END")
