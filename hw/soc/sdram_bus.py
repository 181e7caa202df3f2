"""Commands and pins of an SDR SDRAM."""

from __future__ import annotations

from amaranth import unsigned
from amaranth.lib import data, enum
from amaranth.lib.wiring import In, Out, Signature

from .sdram_part import SdramPart

PRECHARGE_ALL = 1 << 10
"""Address bit of a PRECHARGE that means all banks; of a READ or WRITE, that the bank closes after
it."""


class Command(enum.Enum, shape=3):
    """RAS#, CAS#, WE#, from the highest bit down; the chip is always selected."""

    LOAD_MODE = 0b000
    REFRESH = 0b001
    PRECHARGE = 0b010
    ACTIVATE = 0b011
    WRITE = 0b100
    READ = 0b101
    NOP = 0b111


def mode(burst: int, cas: int) -> int:
    """The mode register: sequential bursts of `burst` words, reads and writes alike."""
    return cas << 4 | burst.bit_length() - 1


class SdramSignature(Signature):
    """The pins as the controller sees them, one word a cycle. dq_oe: drive dq_o in this cycle. dqm
    is high for bytes that are not written."""

    def __init__(self, part: SdramPart) -> None:
        self.part = part
        super().__init__(
            {
                "cke": Out(1),
                "command": Out(Command),
                "ba": Out(part.bank_bits),
                "a": Out(part.row_bits),
                "dqm": Out(part.data_bits // 8),
                "dq_o": Out(part.data_bits),
                "dq_oe": Out(1),
                "dq_i": In(part.data_bits),
            }
        )


def segment_layout(part: SdramPart, beats: int) -> data.StructLayout:
    """Consecutive bus words of one row: `beats` is the most.

    len: words less one. last: of its AXI burst. bad: outside of the memory; nothing is written, and
    the answer is an error.
    """
    return data.StructLayout(
        {
            "bank": unsigned(part.bank_bits),
            "row": unsigned(part.row_bits),
            "column": unsigned(part.column_bits),
            "len": range(max(beats, 2)),
            "last": unsigned(1),
            "bad": unsigned(1),
        }
    )
