"""AXI4 and AXI4-Lite signatures, as their master sees them; every channel is a stream.

Only what varies is a member. The constants of a master (identifier 0, full-width incrementing
bursts, normal access) become pins in `terntable.hw.flat`.
"""

from __future__ import annotations

from amaranth import unsigned
from amaranth.lib import data, enum, stream
from amaranth.lib.wiring import In, Out, Signature

from ..regs import ADDRESS_BITS as CONTROL_ADDRESS_BITS
from ..regs import BUS_ADDRESS_BITS as ADDRESS_BITS

PAGE_BYTES = 4096
"""No burst crosses a multiple of this (AXI4, section A3.4.1)."""


class Response(enum.Enum, shape=2):
    """RRESP and BRESP values."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def address_layout() -> data.StructLayout:
    """AR and AW: byte address, beats less one."""
    return data.StructLayout({"addr": unsigned(ADDRESS_BITS), "len": unsigned(8)})


def read_layout(data_bits: int) -> data.StructLayout:
    """R."""
    return data.StructLayout(
        {"data": unsigned(data_bits), "resp": unsigned(2), "last": unsigned(1)}
    )


def write_layout(data_bits: int) -> data.StructLayout:
    """W."""
    return data.StructLayout(
        {"data": unsigned(data_bits), "strb": unsigned(data_bits // 8), "last": unsigned(1)}
    )


class AXI4Signature(Signature):
    """An AXI4 master with one identifier: answers come in order."""

    def __init__(self, data_bits: int) -> None:
        self.data_bits = data_bits
        super().__init__(
            {
                "ar": Out(stream.Signature(address_layout())),
                "r": In(stream.Signature(read_layout(data_bits))),
                "aw": Out(stream.Signature(address_layout())),
                "w": Out(stream.Signature(write_layout(data_bits))),
                "b": In(stream.Signature(data.StructLayout({"resp": unsigned(2)}))),
            }
        )


class AXI4LiteSignature(Signature):
    """An AXI4-Lite master of 32-bit words. The protection bits are ignored."""

    def __init__(self, address_bits: int = CONTROL_ADDRESS_BITS) -> None:
        self.address_bits = address_bits
        address = data.StructLayout({"addr": unsigned(address_bits)})
        word = data.StructLayout({"data": unsigned(32), "strb": unsigned(4)})
        answer = data.StructLayout({"data": unsigned(32), "resp": unsigned(2)})
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(stream.Signature(word)),
                "b": In(stream.Signature(data.StructLayout({"resp": unsigned(2)}))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(answer)),
            }
        )
