"""The serial link's frames and commands, as data: gateware, host and tests take them from here.

A frame on the wire is FLAG, its octets and their CRC-32 with FLAG and ESCAPE stuffed (as in
asynchronous HDLC, RFC 1662), FLAG. Numbers are little-endian.

    request: command 8, sequence 8, session 16, address 32, count 32, data
    reply:   command | REPLY 8, sequence 8, session 16, status 8, detail 8, data
"""

from __future__ import annotations

import enum
import struct

VERSION = 1
"""Raised when host and gateware of different versions would not understand each other."""

BITS = 10
"""Of an octet on the line: a start bit, eight of data, a stop bit."""

FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
"""Begins and ends a frame; stands before an octet of a frame that is one of both and then sent
with the bits FLIP turned."""

REPLY = 0x80
"""Bit of a reply's command: a host that hears its own requests does not take them for replies."""

REQUEST = struct.Struct("<BBHII")
ANSWER = struct.Struct("<BBHBB")
CRC_BYTES = 4

DATA_BYTES = 512
"""Most data of a request or reply."""

BUFFER_BYTES = 4096
"""Requests, without their CRC, that the board holds while it executes one."""

BUFFER_FRAMES = 16
"""And how many of them."""

HELLO_DATA = struct.Struct("<HHHHQIIIII")
"""Data of a reply to HELLO: protocol version, most data of a frame, bytes and frames of the
board's buffer; the memory's bus address and size; the clock in Hz; MAGIC, VERSION, CONFIG_HASH."""


class Command(enum.IntEnum):
    """What a request asks for."""

    HELLO = 1
    SYNC = 2
    READ_REGISTERS = 3
    WRITE_REGISTERS = 4
    READ_MEMORY = 5
    WRITE_MEMORY = 6
    FILL_MEMORY = 7
    CHECKSUM_MEMORY = 8
    WAIT = 9


class Reply(enum.IntEnum):
    """How a request went: the status of a reply."""

    OK = 0
    REFUSED = 1
    OUT_OF_ORDER = 2
    NO_SESSION = 3
    MEMORY_ERROR = 4
    REGISTER_ERROR = 5


MOST_BYTES = (1 << 24) - 1
"""Most bytes of FILL_MEMORY and CHECKSUM_MEMORY."""

COMMAND_MEANINGS: dict[Command, str] = {
    Command.HELLO: "open the session that the frame names, not 0, with this sequence number;"
    " answered with what the board is",
    Command.SYNC: "go on with this sequence number, whatever came before it",
    Command.READ_REGISTERS: "`count` registers from `address` on, 1 to a quarter of the most data;"
    " answered with their words",
    Command.WRITE_REGISTERS: "data are `count` pairs of address and word, written in this order",
    Command.READ_MEMORY: "`count` bytes from `address` on, 1 to the most data; answered with them",
    Command.WRITE_MEMORY: "data are `count` bytes for `address` and up",
    Command.FILL_MEMORY: "write zeros: `count` bytes from `address` on, 1 to 2^24 - 1",
    Command.CHECKSUM_MEMORY: "answered with the CRC-32 (of zlib) of as many bytes as FILL_MEMORY"
    " fills",
    Command.WAIT: "answered when the interrupt is raised, or after `count` milliseconds (16 bits);"
    " detail is the interrupt",
}

REPLY_MEANINGS: dict[Reply, str] = {
    Reply.OK: "done",
    Reply.REFUSED: "no such command, or not with this `count`, `address` or length; nothing done",
    Reply.OUT_OF_ORDER: "a request before this one is missing, detail is the last sequence number;"
    " nothing done",
    Reply.NO_SESSION: "the board has another session, or none since its reset; nothing done",
    Reply.MEMORY_ERROR: "detail is the error's code (see the registers), data the offset of the"
    " access that failed",
    Reply.REGISTER_ERROR: "detail is the response of the control port (AXI4-Lite), data the"
    " register's address; those before it are written",
}
