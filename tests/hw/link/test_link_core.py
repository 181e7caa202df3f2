"""The link's gateware behind a perfect line and behind bad ones: against the reference, octet by
octet, and with the host's own code in front."""

from __future__ import annotations

import random
import zlib

import pytest

from terntable.host.devices.base import DeviceError
from terntable.host.link.frames import Answer, Request, encode
from terntable.host.link.serial_transport import SerialTransport
from terntable.hw.axi.bus import Response
from terntable.hw.link.protocol import REPLY, REQUEST, Command, Reply

from ...far_end import FarEnd
from .board import BASE, BEATS, BUS_BITS, CLOCK_HZ, OCTET_CYCLES, Faults, SimulatedBoard

TIMEOUT = 0.002
"""Seconds of simulated time, more than any of these requests takes."""


def opened(**parameters) -> tuple[SimulatedBoard, SerialTransport]:
    board = SimulatedBoard(**parameters)
    return board, SerialTransport(board, timeout=TIMEOUT, tries=3, session=77)


def reference(board: SimulatedBoard) -> FarEnd:
    """A far end with the same registers and memory as the board's, which it does not share."""
    words = dict(board.registers.words)

    def write(address: int, word: int) -> int:
        if address not in words:
            return Response.SLVERR.value
        words[address] = word
        return Response.OKAY.value

    return FarEnd(
        lambda at: (words[at], 0) if at in words else (0, Response.SLVERR.value),
        write,
        bytearray(board.memory.data),
        lambda milliseconds: board.irq,
        base=BASE,
        clock_hz=CLOCK_HZ,
        burst_bytes=BEATS * BUS_BITS // 8,
        bad=board.memory.bad,
    )


def some_requests(rng: random.Random, count: int) -> list[bytes]:
    """Frames: most are sound and in order, some repeat the last one, skip one, are of another
    session, or make no sense."""
    session, sequence, frames = 0x1234, 9, []
    frames.append(REQUEST.pack(Command.READ_REGISTERS, 0, session, 0, 1))  # before any HELLO
    frames.append(REQUEST.pack(Command.HELLO, sequence, 0, 0, 0))
    frames.append(REQUEST.pack(Command.HELLO, sequence, session, 0, 0))
    for _ in range(count):
        kind = rng.random()
        if kind < 0.15:
            frames.append(frames[-1])
            continue
        skip = 1 + (kind > 0.92) * rng.randrange(1, 200)
        other = session + (kind > 0.97)
        head, data = some_request(rng)
        frames.append(REQUEST.pack(head[0], (sequence + skip) % 256, other, *head[1:]) + data)
        if head[0] == Command.SYNC and other == session and not data:
            sequence = (sequence + skip) % 256
        elif skip == 1 and other == session:
            sequence = (sequence + 1) % 256
    return frames


def some_request(rng: random.Random) -> tuple[tuple[int, int, int], bytes]:
    """Command, address, count; data."""
    size = rng.choice([1, 2, 3, 4, 5, 17, 33])
    at = rng.choice([rng.randrange(2000), 2048 - size, 2048 - size + 1, 2**32 - 2])
    register = rng.choice([0, 4, 0x20, 0x7C, 0x80, 0xFC, 0x100, 2**32 - 4])
    pair = register.to_bytes(4, "little") + rng.randbytes(4)
    return rng.choice([
        ((Command.READ_REGISTERS, register, rng.choice([1, 2, 3])), b""),
        ((Command.READ_REGISTERS, 0, rng.choice([0, 129, 2**32 - 1])), b""),
        ((Command.WRITE_REGISTERS, 0, 1), pair),
        ((Command.WRITE_REGISTERS, 0, 2), (4).to_bytes(4, "little") + rng.randbytes(4) + pair),
        ((Command.WRITE_REGISTERS, 0, 2), pair + bytes(rng.randrange(1, 8))),
        ((Command.READ_MEMORY, at, size), b""),
        ((Command.READ_MEMORY, 0, rng.choice([0, 513])), b""),
        ((Command.WRITE_MEMORY, at, size), rng.randbytes(size)),
        ((Command.WRITE_MEMORY, at, size), rng.randbytes(size + 1)),
        ((Command.WRITE_MEMORY, at, 0), b""),
        ((Command.FILL_MEMORY, at, size), b""),
        ((Command.FILL_MEMORY, 0, rng.choice([0, 1 << 24])), b""),
        ((Command.CHECKSUM_MEMORY, at, size), b""),
        ((Command.WAIT, 0, 0), b""),
        ((Command.WAIT, 0, 1 << 16), b""),
        ((Command.SYNC, 0, 0), rng.choice([b"", b"x"])),
        ((0, 0, 0), b""),
        ((77, 1, 2), b"data"),
        ((Command.READ_MEMORY | REPLY, 0, 4), b""),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_replies_are_the_references(seed: int) -> None:
    """To requests of all kinds, sent without waiting for replies."""
    rng = random.Random(seed)
    board = SimulatedBoard(size=2048, seed=seed, stall=(0.0, 0.3, 0.7)[seed])
    board.memory.bad.append(range(600, 604))
    far_end = reference(board)
    frames = some_requests(rng, 50)
    for at in range(0, len(frames), 8):
        part = frames[at : at + 8]
        expected = [far_end.answer(frame) for frame in part]
        got = board.exchange(b"".join(map(encode, part)), len(part))
        assert [b"\x7e" + frame + b"\x7e" for frame in got] == expected
    assert board.memory.data == far_end.memory


def test_bytes_of_any_run() -> None:
    """At any address, over bursts and words and pages, leaving their neighbours alone."""
    rng = random.Random(1)
    board, transport = opened(seed=1)
    expected = bytearray(board.memory.data)
    for offset, size in [(0, 1), (3, 1), (1, 2), (3, 2), (2, 61), (4093, 7), (8191, 1), (100, 517)]:
        data = rng.randbytes(size)
        transport.write_memory(offset, data)
        expected[offset : offset + size] = data
        assert board.memory.data == expected
        low, high = max(offset - 3, 0), min(offset + size + 2, 8192)
        assert transport.read_memory(low, high - low) == expected[low:high]
        assert transport.checksum_memory(low, high - low) == zlib.crc32(expected[low:high])
    transport.fill_memory(4090, 10)
    expected[4090:4100] = bytes(10)
    assert board.memory.data == expected


def test_cycles_of_a_full_frame() -> None:
    """The board is done with a frame long before the line is with the next: docs/link.md."""
    board = SimulatedBoard(stall=0.0)
    board.exchange(encode(REQUEST.pack(Command.HELLO, 0, 1, 0, 0)), 1)

    def cycles(sequence: int, command: Command, count: int, data: bytes = b"") -> float:
        """Besides those of the octets on the line."""
        began = board.clock()
        request = encode(REQUEST.pack(command, sequence, 1, 0, count) + data)
        (reply,) = board.exchange(request, 1)
        octets = len(request) + len(reply) + 2
        return (board.clock() - began) * CLOCK_HZ - octets * OCTET_CYCLES

    assert cycles(1, Command.WRITE_MEMORY, 512, bytes(512)) < 1200
    assert cycles(2, Command.READ_MEMORY, 512) < 800
    assert cycles(3, Command.CHECKSUM_MEMORY, 2048) < 1.5 * 2048
    assert cycles(4, Command.FILL_MEMORY, 2048) < 1.5 * 2048


def test_what_the_board_is() -> None:
    _, transport = opened()
    who = transport.identity
    assert (who.memory_base, who.memory_bytes, who.clock_hz) == (BASE, 8192, CLOCK_HZ)
    assert (who.magic, who.register_version, who.config_hash) == (0, 0x01010101, 0x02020202)


def test_errors_of_the_buses_are_named_and_over() -> None:
    board, transport = opened()
    board.memory.bad.append(range(0x400, 0x404))
    for action, text in [
        (lambda: transport.read_register(0x80), r"SLVERR of the control port.*address 0x80"),
        (lambda: transport.write_register(0x84, 1), r"SLVERR of the control port.*address 0x84"),
        (lambda: transport.read_register(0x1000), r"DECERR of the control port.*address 0x1000"),
        (lambda: transport.read_memory(0x3F0, 40), r"READ_RESPONSE.*host link.*address 0x3f0"),
        (lambda: transport.write_memory(0x402, b"x"), r"WRITE_RESPONSE.*address 0x400"),
        (lambda: transport.checksum_memory(0x400, 2), r"READ_RESPONSE.*address 0x400"),
        (lambda: transport.fill_memory(0x3FC, 9), r"WRITE_RESPONSE.*address 0x3fc"),
        (lambda: transport.read_memory(8190, 3), r"READ_FENCE.*address 0x2000"),
        (lambda: transport.fill_memory(8192, 1), r"WRITE_FENCE.*address 0x2000"),
    ]:
        with pytest.raises(DeviceError, match=text):
            action()
        transport.write_memory(0x100, b"sound")
        assert transport.read_memory(0x0FF, 7)[1:6] == b"sound"
        assert transport.read_register(0x10) == 0x04040404


def test_the_interrupt_ends_a_wait() -> None:
    board, transport = opened()
    began = board.clock()
    assert not transport.wait_interrupt(0.01)
    assert 0.01 <= board.clock() - began < 0.0115
    board.irq = True
    began = board.clock()
    assert transport.wait_interrupt(10.0)
    assert board.clock() - began < 0.001


@pytest.mark.parametrize("seed", range(2))
def test_bad_lines_lose_time_only(seed: int) -> None:
    """Octets dropped, repeated and changed both ways: registers are written once and in order, and
    memory is as asked for."""
    rng = random.Random(seed)
    board = SimulatedBoard(
        size=2048, seed=seed, to_board=Faults(10 + seed, 0.006), to_host=Faults(20 + seed, 0.006)
    )
    transport = SerialTransport(board, timeout=0.001, tries=50, session=78)
    expected, log = bytearray(board.memory.data), []
    for n in range(6):
        at, size = rng.randrange(1500), rng.randrange(1, 60)
        data = rng.randbytes(size)
        transport.write_memory(at, data)
        expected[at : at + size] = data
        log += [(0x20, n), (0x24, 100 + n)]
        transport.write_registers(log[-2:])
        assert transport.read_registers([0x24, 0x20]) == [100 + n, n]
        at, size = rng.randrange(1500), rng.randrange(1, 60)
        assert transport.read_memory(at, size) == expected[at : at + size]
        assert transport.checksum_memory(at, size) == zlib.crc32(expected[at : at + size])
    assert board.registers.log == log
    assert board.memory.data == expected


def test_a_dead_line_is_an_error() -> None:
    board, transport = opened()
    board.to_host = lambda octets: b""
    for action in (
        lambda: transport.read_register(0),
        lambda: transport.read_memory(0, 4),
        lambda: transport.write_memory(0, bytes(1000)),
    ):
        with pytest.raises(DeviceError, match="does not answer any more: check cable"):
            action()
    # What was given up has gone through or has not; the line is good again.
    board.to_host = bytes
    assert transport.read_memory(0, 4) == board.memory.data[:4]
    assert transport.read_register(4) == 0x01010101


def test_an_interrupted_transfer_spoils_nothing() -> None:
    board, transport = opened()

    def stop(count: int) -> None:
        board.to_board = lambda octets: octets[:-5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transport.write_memory(0, bytes(1100), moved=stop)
    with pytest.raises(DeviceError, match="does not answer"):
        transport.write_register(0x10, 5)
    board.to_board = bytes
    transport.write_register(0x10, 6)
    transport.write_memory(0, b"whole")
    assert transport.read_memory(0, 5) == b"whole"
    assert board.registers.log == [(0x10, 6)]


def test_another_host_ends_a_session() -> None:
    """As a reset of the board does: what it held is not taken for what was written."""
    board, transport = opened()
    SerialTransport(board, timeout=TIMEOUT, session=79)
    for action in (lambda: transport.read_register(0), lambda: transport.read_memory(0, 4)):
        with pytest.raises(DeviceError, match="was reset or loaded again"):
            action()


def test_replies_are_told_from_requests() -> None:
    assert Answer.of(Request(Command.HELLO).octets(1, 2)) is None
    assert Answer.of(bytes([Command.HELLO | REPLY, 1, 2, 0, 99, 0])) is None
    answer = Answer.of(bytes([Command.HELLO | REPLY, 1, 2, 0, Reply.OK, 3]) + b"x")
    assert answer == Answer(Command.HELLO, 1, 2, Reply.OK, 3, b"x")
