"""A board's end of the serial link in Python: the reference of hw/link, and what stands for a board
in the tests of the host.

It is written from docs/link.md and shares no code with the host's end, only the numbers of
terntable.hw.link.protocol.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from terntable.hw.link.protocol import (
    BUFFER_BYTES,
    BUFFER_FRAMES,
    DATA_BYTES,
    ESCAPE,
    FLAG,
    FLIP,
    HELLO_DATA,
    MOST_BYTES,
    VERSION,
    Command,
    Reply,
)
from terntable.hw.regs import ADDRESS_BITS, Error

OKAY, SLVERR, DECERR = 0, 2, 3
WORD, PAGE = 4, 4096


def stuffed(octets: bytes) -> bytes:
    """A frame on the line."""
    out = bytearray([FLAG])
    for octet in octets + zlib.crc32(octets).to_bytes(4, "little"):
        out += bytes([ESCAPE, octet ^ FLIP]) if octet in (FLAG, ESCAPE) else bytes([octet])
    return bytes(out) + bytes([FLAG])


class Line:
    """Octets of a line as they come, to frames that are whole."""

    def __init__(self) -> None:
        self._frame = bytearray()
        self._escaped = False
        self._good = False

    def push(self, octet: int) -> bytes | None:
        """The frame that this octet ends."""
        if octet == FLAG:
            frame, good = bytes(self._frame), self._good and not self._escaped
            self._frame, self._good, self._escaped = bytearray(), True, False
            whole = good and 16 <= len(frame) <= 12 + DATA_BYTES + 4
            if whole and zlib.crc32(frame[:-4]) == int.from_bytes(frame[-4:], "little"):
                return frame[:-4]
        elif octet == ESCAPE:
            self._escaped = True
        else:
            self._frame.append(octet ^ (FLIP if self._escaped else 0))
            self._escaped = False
        return None


@dataclass
class FarEnd:
    """Answers requests. `executed` lists those that were, by command and sequence.

    read_register and write_register give the bus' response, reads the word before it; `memory` is
    what hosts may use, `bad` ranges of it in which the bus answers with an error; `wait` stands for
    the interrupt after so many milliseconds.
    """

    read_register: Callable[[int], tuple[int, int]]
    write_register: Callable[[int, int], int]
    memory: bytearray
    wait: Callable[[int], bool]
    base: int = 0
    clock_hz: int = 50_000_000
    burst_bytes: int = 64
    bad: list[range] = field(default_factory=list)
    executed: list[tuple[int, int]] = field(default_factory=list)
    session: int = 0
    last: int = 0
    reply: tuple[int, int, bytes] = (0, 0, b"")

    def reset(self) -> None:
        """What a reset, or a new bitstream, leaves."""
        self.session = self.last = 0
        self.reply = (0, 0, b"")

    def answer(self, frame: bytes) -> bytes:
        """The reply to a frame, as it goes onto the line."""
        command, sequence = frame[0], frame[1]
        session = int.from_bytes(frame[2:4], "little")
        address = int.from_bytes(frame[4:8], "little")
        count = int.from_bytes(frame[8:12], "little")
        data = frame[12:]
        fits = self._fits(command, session, count, data)
        opens = fits and command == Command.HELLO
        known = session == self.session and session != 0
        syncs = fits and known and command == Command.SYNC
        if not opens and not known:
            status, detail, back = Reply.NO_SESSION, self.last, b""
        elif not opens and not syncs and sequence == self.last:
            status, detail, back = self.reply
        elif not opens and not syncs and sequence != (self.last + 1) % 256:
            status, detail, back = Reply.OUT_OF_ORDER, self.last, b""
        else:
            self.session, self.last = session, sequence
            self.reply = (Reply.REFUSED, 0, b"")
            if fits:
                self.executed.append((command, sequence))
                self.reply = self._execute(command, address, count, data)
            status, detail, back = self.reply
        head = bytes([command | 0x80, sequence]) + frame[2:4] + bytes([status, detail])
        return stuffed(head + back)

    @staticmethod
    def _fits(command: int, session: int, count: int, data: bytes) -> bool:
        bare = not data
        return {
            Command.HELLO: bare and session != 0,
            Command.SYNC: bare,
            Command.READ_REGISTERS: bare and 1 <= count <= DATA_BYTES // 4,
            Command.WRITE_REGISTERS: count >= 1 and len(data) == 8 * count,
            Command.READ_MEMORY: bare and 1 <= count <= DATA_BYTES,
            Command.WRITE_MEMORY: count >= 1 and len(data) == count,
            Command.FILL_MEMORY: bare and 1 <= count <= MOST_BYTES,
            Command.CHECKSUM_MEMORY: bare and 1 <= count <= MOST_BYTES,
            Command.WAIT: bare and count < 1 << 16,
        }.get(command, False)

    def _execute(self, command: int, address: int, count: int, data: bytes) -> tuple:
        if command == Command.HELLO:
            who = (VERSION, DATA_BYTES, BUFFER_BYTES, BUFFER_FRAMES, self.base, len(self.memory),
                   self.clock_hz, 0, 0, 0)  # fmt: skip
            return self._read_registers(0, 3, HELLO_DATA.pack(*who)[:-12])
        if command == Command.SYNC:
            return Reply.OK, 0, b""
        if command == Command.READ_REGISTERS:
            return self._read_registers(address, count, b"")
        if command == Command.WRITE_REGISTERS:
            return self._write_registers(data)
        if command == Command.WAIT:
            return Reply.OK, int(self.wait(count)), b""
        writes = command in (Command.WRITE_MEMORY, Command.FILL_MEMORY)
        if failed := self._failed(address, count):
            at, fence = failed
            if writes:
                code = Error.WRITE_FENCE if fence else Error.WRITE_RESPONSE
            else:
                code = Error.READ_FENCE if fence else Error.READ_RESPONSE
            return Reply.MEMORY_ERROR, code, at.to_bytes(4, "little")
        if command == Command.READ_MEMORY:
            return Reply.OK, 0, bytes(self.memory[address : address + count])
        if command == Command.CHECKSUM_MEMORY:
            crc = zlib.crc32(self.memory[address : address + count])
            return Reply.OK, 0, crc.to_bytes(4, "little")
        self.memory[address : address + count] = data or bytes(count)
        return Reply.OK, 0, b""

    def _failed(self, address: int, count: int) -> tuple[int, bool] | None:
        """The first burst of a run that fails, and whether it does for the fence."""
        at, end = address & -WORD, -(-(address + count) // WORD) * WORD
        while at < end:
            stop = min(end, at + self.burst_bytes, (at // PAGE + 1) * PAGE)
            if stop > len(self.memory):
                return at, True
            if any(range(max(r.start, at), min(r.stop, stop)) for r in self.bad):
                return at, False
            at = stop
        return None

    def _read_registers(self, address: int, count: int, before: bytes) -> tuple:
        words = b""
        for at in range(address, address + 4 * count, 4):
            word, response = (0, DECERR) if at >> ADDRESS_BITS else self.read_register(at)
            if response:
                return Reply.REGISTER_ERROR, response, at.to_bytes(4, "little")
            words += word.to_bytes(4, "little")
        return Reply.OK, 0, before + words

    def _write_registers(self, data: bytes) -> tuple:
        for n in range(0, len(data), 8):
            at, word = (int.from_bytes(data[n + k : n + k + 4], "little") for k in (0, 4))
            response = DECERR if at >> ADDRESS_BITS else self.write_register(at, word)
            if response:
                return Reply.REGISTER_ERROR, response, at.to_bytes(4, "little")
        return Reply.OK, 0, b""
