"""The register table of the AXI4-Lite control port, as data.

Gateware, host constants, the JSON beside the Verilog and the documentation come from here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .isa import Unit

MAGIC = 0x4E524554  # "TERN", little-endian
VERSION = 0x00010001


class Access(enum.Enum):
    RO = "read"
    RW = "read/write"
    WO = "write"


@dataclass(frozen=True)
class Register:
    name: str
    address: int
    access: Access
    doc: str


class Status(enum.IntFlag):
    """Bits of STATUS."""

    BUSY = 1
    DONE = 2
    ERROR = 4


class Control(enum.IntFlag):
    """Bits of CONTROL."""

    START = 1
    CLEAR = 2
    RESET = 4


class Error(enum.IntEnum):
    """ERROR_CODE values."""

    NONE = 0
    BAD_COMMAND = 1
    READ_FENCE = 2
    WRITE_FENCE = 3
    READ_RESPONSE = 4
    WRITE_RESPONSE = 5
    BAD_CALL = 6
    START_WHILE_BUSY = 7
    BAD_DIMENSION = 8
    EARLY_END = 9
    NO_PROGRESS = 10


ERROR_MEANINGS: dict[Error, str] = {
    Error.NONE: "no error",
    Error.BAD_COMMAND: "the opcode is none",
    Error.READ_FENCE: "a read outside of the image, or not aligned to the bus word",
    Error.WRITE_FENCE: "a write outside of the writable regions, or not aligned to the bus word",
    Error.READ_RESPONSE: "the bus answered a read with an error",
    Error.WRITE_RESPONSE: "the bus answered a write with an error",
    Error.BAD_CALL: "tokens, position and chunk that can't be; ERROR_ADDRESS is their end",
    Error.START_WHILE_BUSY: "a start while a call runs: it has no other effect, the call goes on",
    Error.BAD_DIMENSION: "a field of the command is beyond its limits (see the program format)",
    Error.EARLY_END: "an END before CHUNK, before the LM head, or with weights or scales left over",
    Error.NO_PROGRESS: "nothing moved for WATCHDOG cycles",
}

COMMAND_UNIT = 8
"""ERROR_UNIT of the unit isa.Unit.FETCH; the others follow."""

SEQUENCER_UNIT = 15
"""ERROR_UNIT of the sequencer itself."""


def error_name(code: int) -> str:
    """The name of an ERROR_CODE; of one that this program does not know, its number."""
    return Error(code).name if code in list(Error) else f"error {code}"


ERROR_UNITS: dict[int, str] = {
    0: "weights",
    1: "KV",
    2: "load",
    3: "program",
    4: "KV write",
    5: "logits write",
    **{COMMAND_UNIT + unit: unit.name for unit in Unit},
    SEQUENCER_UNIT: "sequencer",
}
"""Values of ERROR_UNIT: requesters of the bus, units that execute commands, the sequencer."""


_TABLE: list[tuple[str, Access, str]] = [
    ("MAGIC", Access.RO, "0x4E524554, the letters TERN"),
    ("VERSION", Access.RO, "version of this table, major in the upper half"),
    ("CONFIG_HASH", Access.RO, "content hash of the configuration; an image carries the same"),
    ("STATUS", Access.RO, "bit 0 busy, bit 1 done, bit 2 error"),
    ("CONTROL", Access.WO, "bit 0 start, bit 1 clear done and error, bit 2 soft reset"),
    ("IRQ_ENABLE", Access.RW, "bit 0: raise the interrupt when a call ends"),
    ("ERROR_CODE", Access.RO, "what went wrong: see Error"),
    (
        "ERROR_UNIT",
        Access.RO,
        "where: " + ", ".join(f"{n} {name}" for n, name in ERROR_UNITS.items()),
    ),
    ("ERROR_ADDRESS", Access.RO, "offset of the access that failed, or of the command"),
    (
        "ERROR_COMMAND",
        Access.RO,
        "index of the command that failed; while a call runs, of the one that is next",
    ),
    ("BASE_LO", Access.RW, "bus address of the image, bits 31:0; a multiple of 4096"),
    ("BASE_HI", Access.RW, "bus address of the image, bits 63:32"),
    ("LIMIT", Access.RW, "bytes of the image: the fence refuses any access at or above"),
    ("WRITE_BASE", Access.RW, "lowest offset that may be written"),
    ("PROGRAM", Access.RW, "offset of the program"),
    ("TOKENS", Access.RW, "tokens of the call, at least 1"),
    ("POSITION", Access.RW, "position of the call's first token"),
    ("CHUNK", Access.RW, "tokens of a chunk, 1 to the configuration's"),
    ("ARGMAX", Access.RO, "id of the largest logit of the last call, lowest id on a tie"),
    ("ARGMAX_LOGIT", Access.RO, "that logit, binary32"),
    ("CYCLES", Access.RO, "cycles of the call"),
    ("CYCLES_FETCH", Access.RO, "cycles with the weight fetch busy"),
    ("CYCLES_LOAD", Access.RO, "cycles with the load unit busy"),
    ("CYCLES_VECTOR", Access.RO, "cycles with the norm and quantise unit busy"),
    ("CYCLES_LINEAR", Access.RO, "cycles with the linear engine busy"),
    ("CYCLES_ATTENTION", Access.RO, "cycles with the attention unit busy"),
    ("CYCLES_WEIGHT_WAIT", Access.RO, "cycles with the linear engine waiting for weights"),
    ("READ_BEATS", Access.RO, "beats read on all ports"),
    ("WRITE_BEATS", Access.RO, "beats written"),
    ("UNIT_STATE", Access.RO, "busy bits of the units (see Unit), then debug bits"),
    (
        "WATCHDOG",
        Access.RW,
        "cycles without progress of bus and units that end a call in NO_PROGRESS; 0: never",
    ),
]

REGISTERS: tuple[Register, ...] = tuple(
    Register(name, 4 * i, access, doc) for i, (name, access, doc) in enumerate(_TABLE)
)
ADDRESS: dict[str, int] = {r.name: r.address for r in REGISTERS}
ADDRESS_BITS = 8
"""Address bits of the control port."""

BUS_ADDRESS_BITS = 40
"""Address bits of the memory ports: BASE and all that lies behind it are below 2^40."""
