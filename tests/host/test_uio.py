"""Registers, interrupt and memory of UIO and u-dma-buf, each on files as they are."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from terntable.host.devices.base import DeviceError
from terntable.host.uio.buffer import LINE, SharedMemory, UdmaCaches
from terntable.host.uio.interrupt import UioInterrupt
from terntable.host.uio.registers import MappedRegisters
from terntable.host.uio.sysfs import REGISTER_BYTES
from terntable.hw.regs import ADDRESS, REGISTERS

from .uio_tree import WriteBackCaches

# ---------------------------------------------------------------- registers


@pytest.fixture
def words(tmp_path: Path) -> Iterator[tuple[MappedRegisters, Path]]:
    """Registers that begin 64 bytes behind a page of a file."""
    file = tmp_path / "uio0"
    file.write_bytes(bytes(3 * mmap.PAGESIZE))
    with file.open("r+b") as opened:
        registers = MappedRegisters(opened.fileno(), REGISTER_BYTES, 64)
    yield registers, file
    registers.close()
    registers.close()


def test_registers_are_where_they_should_be(words: tuple[MappedRegisters, Path]) -> None:
    registers, file = words
    for r in REGISTERS:
        registers.write32(r.address, 0xA5000000 + r.address)
    data = file.read_bytes()
    assert struct.unpack_from(f"<{len(REGISTERS)}I", data, 64) == tuple(
        0xA5000000 + r.address for r in REGISTERS
    )
    assert not any(data[:64]) and not any(data[64 + REGISTER_BYTES :])
    assert registers.read32(ADDRESS["WATCHDOG"]) == 0xA5000000 + ADDRESS["WATCHDOG"]
    for address in (2, -4):
        with pytest.raises(ValueError, match="not that of a word"):
            registers.read32(address)
    with pytest.raises(IndexError):
        registers.read32(REGISTER_BYTES)


class Accesses:
    """Counts instructions that access four bytes at an address, by a breakpoint of the CPU's."""

    READS, WRITES = 1, 2
    _CALL = {"x86_64": 298, "aarch64": 241}.get(platform.machine())
    _BREAKPOINT, _ATTRIBUTE_BYTES, _USER_ONLY = 5, 112, 1 << 5 | 1 << 6

    def __init__(self, address: int, kinds: int) -> None:
        attribute = bytearray(self._ATTRIBUTE_BYTES)
        struct.pack_into("<II", attribute, 0, self._BREAKPOINT, self._ATTRIBUTE_BYTES)
        struct.pack_into("<Q", attribute, 40, self._USER_ONLY)
        struct.pack_into("<IQQ", attribute, 52, kinds, address, 4)
        libc = ctypes.CDLL(None)
        raw = (ctypes.c_char * len(attribute)).from_buffer(attribute)
        self.file = -1 if self._CALL is None else libc.syscall(self._CALL, raw, 0, -1, -1, 0)
        if self.file < 0:
            pytest.skip("no breakpoints of the CPU's for this process")

    def count(self) -> int:
        return int(struct.unpack("<Q", os.read(self.file, 8))[0])


def test_an_access_is_one_instruction(words: tuple[MappedRegisters, Path]) -> None:
    registers, _ = words
    view = (ctypes.c_uint32 * 1).from_buffer(registers._map, 64 + 8)
    address = ctypes.addressof(view)
    del view
    both = Accesses(address, Accesses.READS | Accesses.WRITES)
    writes = Accesses(address, Accesses.WRITES)
    try:
        for n in range(1, 6):
            registers.write32(8, 0x01020304)
            assert (both.count(), writes.count()) == (2 * n - 1, n)
            assert registers.read32(8) == 0x01020304
            assert (both.count(), writes.count()) == (2 * n, n)
    finally:
        os.close(both.file)
        os.close(writes.file)


# ---------------------------------------------------------------- the interrupt


@pytest.fixture
def line() -> Iterator[tuple[UioInterrupt, socket.socket]]:
    near, far = socket.socketpair()
    far.settimeout(10)
    interrupt = UioInterrupt(near.detach(), "UIO device 'x'")
    with far:
        yield interrupt, far
    interrupt.close()
    interrupt.close()


def test_it_is_unmasked_and_awaited(line: tuple[UioInterrupt, socket.socket]) -> None:
    interrupt, far = line
    assert not interrupt.wait(0)
    assert far.recv(100) == b"\1\0\0\0"
    far.send(b"\7\0\0\0")  # raised before the wait
    assert interrupt.wait(0)
    raised = threading.Timer(0.05, lambda: far.send(b"\x08\0\0\0"))
    raised.start()
    assert interrupt.wait(30)
    raised.join()
    began = time.monotonic()
    assert not interrupt.wait(0.05)
    assert 0.04 < time.monotonic() - began < 20


def test_a_signal_does_not_end_the_wait(line: tuple[UioInterrupt, socket.socket]) -> None:
    interrupt, far = line
    signals = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: signals.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    raised = threading.Timer(0.2, lambda: far.send(b"\1\0\0\0"))
    raised.start()
    try:
        assert interrupt.wait(30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        raised.join()
    assert signals


def test_ctrl_c_ends_the_wait(line: tuple[UioInterrupt, socket.socket]) -> None:
    interrupt, _ = line
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt.wait(30)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_device_that_fails(line: tuple[UioInterrupt, socket.socket]) -> None:
    interrupt, far = line
    far.close()
    with pytest.raises(DeviceError, match=r"UIO device 'x' fails .*load it again"):
        for _ in range(2):
            interrupt.wait(0)
    interrupt.close()
    with pytest.raises(DeviceError, match="'x' is closed"):
        interrupt.wait(0)


# ---------------------------------------------------------------- memory


def test_commands_for_the_caches(tmp_path: Path) -> None:
    """The offset, then size, direction (1 to the device, 2 from it) and 1, in hexadecimal."""
    for name in ("sync_for_cpu", "sync_for_device"):
        (tmp_path / name).write_text("0")
    caches = UdmaCaches(tmp_path)
    caches.for_cpu(0x10000, 0x240)
    assert (tmp_path / "sync_for_cpu").read_text() == "0x0001000000000249"
    assert (tmp_path / "sync_for_device").read_text() == "0"
    caches.for_device(0x40, (5 << 29) + 64)  # over what one command takes: the last of three
    assert (tmp_path / "sync_for_device").read_text() == "0x8000004020000045"
    caches.close()
    caches.close()


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_is_lost_between_cpu_and_accelerator(tmp_path: Path, seed: int) -> None:
    """They write by turns, anywhere in each other's lines."""
    size, rng = 16 * LINE, random.Random(seed)
    cached, dram = tmp_path / "cached", tmp_path / "dram"
    for file in (cached, dram):
        file.write_bytes(rng.randbytes(size))
    expected = bytearray(dram.read_bytes())
    caches = WriteBackCaches(cached, dram)
    with cached.open("r+b") as opened:
        memory = SharedMemory(opened.fileno(), size, caches)
    for _ in range(500):
        at = rng.randrange(size)
        data = rng.randbytes(rng.randrange(min(3 * LINE, size - at) + 1))
        where = slice(at, at + len(data))
        action = rng.randrange(3)
        if action == 0:
            memory.write(at, data)
            expected[where] = data
        elif action == 1:
            caches.dram[where] = data
            expected[where] = data
        else:
            assert memory.read(at, len(data)) == expected[where]
        assert caches.dram[:] == expected
    for at, count in ((-1, 1), (size, 1), (0, size + 1)):
        with pytest.raises(DeviceError, match="not inside the memory"):
            memory.read(at, count)
        with pytest.raises(DeviceError, match="not inside the memory"):
            memory.write(at, bytes(count))
    memory.close()
    memory.close()
