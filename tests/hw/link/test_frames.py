"""Frames on the line: gateware, host and the reference understand each other, whatever comes."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from terntable.host.link.frames import Decoder, encode
from terntable.hw.link.frame_receiver import MOST_OCTETS, FrameReceiver
from terntable.hw.link.frame_sender import FrameSender
from terntable.hw.link.protocol import BUFFER_BYTES, BUFFER_FRAMES, ESCAPE, FLAG, REQUEST

from ...far_end import Line, stuffed
from ..monitor import sink, source

SPECIAL = bytes([FLAG, ESCAPE, FLAG ^ 0x20, ESCAPE ^ 0x20, 0, 255])


def some_octets(rng: random.Random, size: int) -> bytes:
    """Random octets, half of them special ones."""
    return bytes(rng.choice(SPECIAL) if rng.random() < 0.5 else rng.randrange(256)
                 for _ in range(size))  # fmt: skip


def damaged(rng: random.Random, frame: bytes) -> bytes:
    """A frame's octets on the line after one fault."""
    at = rng.randrange(len(frame))
    kind = rng.randrange(4)
    if kind == 0:
        return frame[:at] + frame[at + 1 :]
    if kind == 1:
        return frame[:at] + frame[at : at + 1] + frame[at:]
    if kind == 2:
        return frame[:at] + bytes([frame[at] ^ 1 << rng.randrange(8)]) + frame[at + 1 :]
    return frame[:at]  # broken off; the next one begins


def heard(frames: list[bytes]) -> list[bytes]:
    """What the reference takes for whole frames."""
    line = Line()
    found = [line.push(octet) for octet in b"".join(frames)]
    return [frame for frame in found if frame is not None]


def receive(
    octets: bytes, expected: list[bytes], idle: float = 0.0, wait: int = 0
) -> list[tuple[int, bytes]]:
    """Lengths and contents of the frames that the gateware gives; its reader begins after `wait`
    cycles."""
    dut = FrameReceiver()
    got: list[tuple[int, bytes]] = []
    rng = random.Random(7)

    async def line(ctx):
        for octet in octets:
            ctx.set(dut.i.payload, octet)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)

    async def take(ctx):
        await ctx.tick().repeat(wait + 1)
        while len(got) < len(expected):
            while not ctx.get(dut.o.valid):
                await ctx.tick()
            length, frame = ctx.get(dut.length), bytearray()
            while len(frame) < length:
                ctx.set(dut.o.ready, rng.random() >= idle)
                _, _, valid, ready, octet = await ctx.tick().sample(
                    dut.o.valid, dut.o.ready, dut.o.payload
                )
                if valid and ready:
                    assert ctx.get(dut.length) == length
                    frame.append(octet)
            ctx.set(dut.o.ready, 0)
            got.append((length, bytes(frame)))
        await ctx.tick().repeat(20)
        assert not ctx.get(dut.o.valid)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(line)
    sim.add_testbench(take, background=True)
    sim.run()
    sim.run_until(1e-6 * (len(octets) + wait + 8 * sum(map(len, expected)) + 200))
    return got


@pytest.mark.parametrize("idle", [0.0, 0.6])
def test_whole_frames_get_through_damaged_ones_do_not(idle: float) -> None:
    rng = random.Random(3)
    sizes = [REQUEST.size, REQUEST.size + 1, 40, 70]
    line = [b"\x01\x02" + bytes([ESCAPE])]  # what was on the line before
    for n in range(24):
        frame = encode(some_octets(rng, rng.choice(sizes)))
        line.append(damaged(rng, frame) if n % 3 == 1 else frame)
    line += [bytes([FLAG]) * 3, encode(some_octets(rng, 12))]
    expected = heard(line)
    assert 12 < len(expected) < 22
    got = receive(b"".join(line), expected, idle)
    assert got == [(len(frame), frame) for frame in expected]


def test_frames_of_the_wrong_size_are_dropped() -> None:
    rng = random.Random(4)
    sizes = [REQUEST.size, 0, REQUEST.size - 1, MOST_OCTETS, MOST_OCTETS + 1, MOST_OCTETS + 90, 13]
    frames = [rng.randbytes(size) for size in sizes]
    expected = [f for f in frames if REQUEST.size <= len(f) <= MOST_OCTETS]
    got = receive(b"".join(map(encode, frames)), expected)
    assert [frame for _, frame in got] == expected


@pytest.mark.parametrize("size", [12, MOST_OCTETS - 100])
def test_a_full_buffer_drops_what_it_has_no_room_for(size: int) -> None:
    """By octets or by frames: those that fit are kept, and later ones get in again."""
    rng = random.Random(5)
    fit = min(BUFFER_BYTES // (size + 4), BUFFER_FRAMES)
    # The reader takes the oldest frame's length when it begins to offer it.
    kept = fit + (fit == BUFFER_FRAMES)
    frames = [rng.randbytes(size) for _ in range(kept + 3)]
    line = b"".join(map(encode, frames))
    late = [rng.randbytes(30) for _ in range(2)]
    pause = bytes([FLAG]) * (4 * size * (kept + 4))
    got = receive(line + pause + b"".join(map(encode, late)), frames[:kept] + late, 0.0, len(line))
    assert [frame for _, frame in got] == frames[:kept] + late


@pytest.mark.parametrize("idle", [(0.0, 0.0), (0.5, 0.5)])
def test_what_is_sent_is_understood(idle: tuple[float, float]) -> None:
    rng = random.Random(6)
    frames = [some_octets(rng, size) for size in (1, 6, 7, 40, 80)]
    words = [
        {"octet": octet, "last": n == len(frame) - 1}
        for frame in frames
        for n, octet in enumerate(frame)
    ]
    line = b"".join(map(stuffed, frames))
    dut = FrameSender()
    got: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(source(dut.i, words, random.Random(1), idle[0]))
    sim.add_testbench(sink(dut.o, got, len(line), random.Random(2), idle[1], shy=True))
    sim.run()
    assert bytes(got) == line


def test_the_host_understands_itself_and_the_reference() -> None:
    """However a line cuts the octets into pieces, and with damage in between."""
    rng = random.Random(8)
    for _ in range(200):
        frames = [some_octets(rng, rng.randrange(12, 60)) for _ in range(6)]
        line = [encode(frame) for frame in frames]
        assert line == [stuffed(frame) for frame in frames]
        line = [damaged(rng, f) if rng.random() < 0.3 else f for f in line]
        octets, decoder, got = b"".join(line), Decoder(), []
        while octets:
            cut = rng.randrange(1, 30)
            got += decoder.push(octets[:cut])
            octets = octets[cut:]
        # Before the first flag, the reference takes nothing for a frame's beginning.
        assert [f for f in got if len(f) >= 12] == heard([bytes([FLAG]), *line])


def test_endless_noise_takes_no_memory() -> None:
    decoder = Decoder()
    for _ in range(100):
        assert list(decoder.push(bytes(1000))) == []
    assert len(decoder._rest) < 2000
    assert list(decoder.push(bytes([FLAG]) + encode(b"after it"))) == [b"after it"]
