"""Frames of the serial link in bytes: what goes onto the line and what comes off it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from terntable.hw.link.protocol import (
    ANSWER,
    CRC_BYTES,
    DATA_BYTES,
    ESCAPE,
    FLAG,
    FLIP,
    REPLY,
    REQUEST,
    Command,
    Reply,
)

_CRC = struct.Struct("<I")
_FLAG = bytes([FLAG])
_ESCAPE = bytes([ESCAPE])
_STUFFED = {octet: bytes([ESCAPE, octet ^ FLIP]) for octet in (ESCAPE, FLAG)}
"""What stands for an octet, the escape first: it must not be escaped twice."""

_LONGEST = 2 * (max(REQUEST.size, ANSWER.size) + DATA_BYTES + CRC_BYTES)
"""Octets between two flags, of which all may be escaped."""


@dataclass(frozen=True)
class Request:
    """A command on its way; `sequence` and `session` are filled in when it is sent."""

    command: Command
    address: int = 0
    count: int = 0
    data: bytes = b""

    def octets(self, sequence: int, session: int) -> bytes:
        """The frame's contents."""
        head = REQUEST.pack(self.command, sequence, session, self.address, self.count)
        return head + self.data


@dataclass(frozen=True)
class Answer:
    """A reply, as protocol.py has it."""

    command: int
    sequence: int
    session: int
    status: Reply
    detail: int
    data: bytes

    @classmethod
    def of(cls, octets: bytes) -> Answer | None:
        """A reply from a frame's contents; None for what is none: a request that came back."""
        if len(octets) < ANSWER.size:
            return None
        command, sequence, session, status, detail = ANSWER.unpack_from(octets)
        if not command & REPLY or status not in set(Reply):
            return None
        data = octets[ANSWER.size :]
        return cls(command & ~REPLY, sequence, session, Reply(status), detail, data)


def encode(octets: bytes) -> bytes:
    """A frame as it goes onto the line."""
    frame = octets + _CRC.pack(zlib.crc32(octets))
    for octet, pair in _STUFFED.items():
        frame = frame.replace(bytes([octet]), pair)
    return _FLAG + frame + _FLAG


class Decoder:
    """Takes what comes off the line and gives the frames whose checksum holds."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, received: bytes) -> Iterator[bytes]:
        """Contents of the frames that `received` completes; a damaged one is dropped."""
        *frames, rest = (self._rest + received).split(_FLAG)
        # Nothing that is longer can become a frame.
        self._rest = rest[:_LONGEST]
        for frame in frames:
            octets = self._decode(frame)
            if octets is not None:
                yield octets

    @staticmethod
    def _decode(frame: bytes) -> bytes | None:
        if frame.endswith(_ESCAPE):
            return None
        head, *pieces = frame.split(_ESCAPE)
        plain = head + b"".join(bytes([piece[0] ^ FLIP]) + piece[1:] for piece in pieces if piece)
        octets, crc = plain[:-CRC_BYTES], plain[-CRC_BYTES:]
        if not octets or crc != _CRC.pack(zlib.crc32(octets)):
            return None
        return octets
