"""On-chip memories of rows: one row a token, read and written a word of lanes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..interfaces import ROW_READ_LATENCY, RowReadSignature, RowWriteSignature


def times(value: Value, factor: int) -> Value:
    """value * factor for a constant, as a sum of shifts (at most one term for two digits)."""
    terms: list[tuple[int, int]] = []
    shift = 0
    while factor:
        if factor & 1:
            digit = 2 - (factor & 3)  # -1 where a run of ones begins
            terms.append((shift, digit))
            factor -= digit
        factor >>= 1
        shift += 1
    result: Value = Value.cast(0)
    for shift, digit in reversed(terms):
        result = result + (value << shift) if digit > 0 else result - (value << shift)
    return result


def reference(values: np.ndarray) -> np.ndarray:
    """The statistics of rows of binary32 `values` [..., n]: the exponent field of max |x|."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (bits >> np.uint32(23) & np.uint32(0xFF)).max(axis=-1)


class RowMemory(Component):
    """`rows` rows of `words` words, each of `lanes` lanes of `lane_bits` bits, packed without gaps.

    One memory with one write and one read port. The users of a port take turns: among writers
    (readers) that raise `en` in the same cycle the one with the lowest number goes, the others are
    ignored.

    Latency: read data arrive ROW_READ_LATENCY = 2 cycles after `en` (memory register, output
    register) and stay until the next read's. A word that is read in the cycle of its write is
    undefined. Throughput: one write and one read a cycle. No back-pressure. Reset leaves the
    contents, and clears the statistics.

    With `stats` (binary32 lanes), `max` is the largest exponent field written to row `max_row`
    since `clear`, combinational from `max_row`; a write counts from `stats_latency` cycles on. A
    write in the cycle of `clear` counts.

    Parameters
    ----------
    ram_style : the memory primitive that synthesis shall take, or None to leave it the choice.
    cut : words beyond the largest power of two lie in LUT memory, where they would leave most of a
        row of block memories empty.
    """

    LATENCY = ROW_READ_LATENCY

    def __init__(
        self,
        rows: int,
        words: int,
        lanes: int,
        lane_bits: int,
        readers: int = 1,
        writers: int = 1,
        stats: bool = False,
        ram_style: str | None = None,
        cut: bool = False,
    ) -> None:
        if stats and lane_bits != 32:
            raise ValueError(f"lane_bits is {lane_bits}: statistics are of binary32 lanes")
        self._rows, self._words, self._lanes, self._lane_bits = rows, words, lanes, lane_bits
        self._readers, self._writers = readers, writers
        self._stats, self._ram_style, self._cut = stats, ram_style, cut
        ports: dict = {}
        for i in range(writers):
            ports[f"write{i}"] = In(RowWriteSignature(rows, words, lanes, lane_bits))
        for i in range(readers):
            ports[f"read{i}"] = In(RowReadSignature(rows, words, lanes * lane_bits))
        if stats:
            ports |= {"clear": In(1), "max_row": In(range(max(rows, 2))), "max": Out(8)}
        super().__init__(ports)

    @property
    def stats_latency(self) -> int:
        """Cycles from a write to the first one whose `max` holds it."""
        return stats_latency(self._lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self._lanes * self._lane_bits
        write, read = self._ports(m, width)

        row, word = Signal(range(max(self._rows, 2))), Signal(range(max(self._words, 2)))
        enable, mask = Signal(), Signal(self._lanes)
        m.d.comb += [
            write.addr.eq(times(row, self._words) + word),
            write.en.eq(Mux(enable, mask, 0)),
        ]
        for i in reversed(range(self._writers)):
            port = getattr(self, f"write{i}")
            with m.If(port.en):
                m.d.comb += enable.eq(1)
            # The last one's address and data need no choice.
            with m.If(port.en | (i == self._writers - 1)):
                m.d.comb += [
                    row.eq(port.row),
                    word.eq(port.word),
                    mask.eq(port.mask),
                    write.data.eq(port.data),
                ]
        if self._stats:
            self._elaborate_stats(m, enable, row, mask, write.data)

        read_row, read_word = Signal.like(row), Signal.like(word)
        m.d.comb += read.addr.eq(times(read_row, self._words) + read_word)
        fetched = Signal()
        output = Signal(width, reset_less=True)
        m.d.sync += fetched.eq(read.en)
        m.d.comb += read.en.eq(0)
        with m.If(fetched):
            m.d.sync += output.eq(read.data)
        for i in reversed(range(self._readers)):
            port = getattr(self, f"read{i}")
            m.d.comb += port.data.eq(output)
            with m.If(port.en):
                m.d.comb += read.en.eq(1)
            with m.If(port.en | (i == self._readers - 1)):
                m.d.comb += [read_row.eq(port.row), read_word.eq(port.word)]
        return m

    def _ports(self, m: Module, width: int) -> tuple[Any, Any]:
        """Write and read port of the memory, or of the two that it is cut into."""
        depth = self._rows * self._words
        whole = 1 << depth.bit_length() - 1
        style = {"ram_style": self._ram_style} if self._ram_style else {}
        parts = [(depth, style)]
        if self._cut and depth > whole:
            parts = [(whole, style), (depth - whole, {"ram_style": "distributed"})]
        ports = []
        for n, (size, attrs) in enumerate(parts):
            memory = Memory(shape=unsigned(width), depth=size, init=[], attrs=attrs)
            m.submodules["rest" if n else "memory"] = memory
            write = memory.write_port(granularity=self._lane_bits)
            # LUT memory behind a register, rather than before one.
            back = memory.read_port(domain="comb" if n else "sync")
            ports.append((write, back))
        if len(ports) == 1:
            return ports[0]
        bits = (depth - 1).bit_length()
        write = Signal(data.StructLayout({"addr": bits, "data": width, "en": self._lanes}))
        read = Signal(data.StructLayout({"addr": bits, "data": width, "en": 1}))
        beyond = Signal()
        held = Signal.like(ports[1][1].addr)
        with m.If(read.en):
            m.d.sync += [beyond.eq(read.addr[-1]), held.eq(read.addr)]
        for n, (to, _) in enumerate(ports):
            m.d.comb += [
                to.addr.eq(write.addr),
                to.data.eq(write.data),
                to.en.eq(Mux(write.addr[-1] == n, write.en, 0)),
            ]
        first, second = (back for _, back in ports)
        m.d.comb += [first.addr.eq(read.addr), first.en.eq(read.en), second.addr.eq(held)]
        m.d.comb += read.data.eq(Mux(beyond, ports[1][1].data, ports[0][1].data))
        return write, read

    def _elaborate_stats(
        self, m: Module, enable: Signal, row: Signal, mask: Signal, word: Value
    ) -> None:
        """A tree of maxima over the lanes, then read-modify-write of the row's maximum."""
        exponents = []
        for i in range(self._lanes):
            exponent = Signal(8, name=f"exponent{i}")
            m.d.sync += exponent.eq(Mux(mask[i], word[32 * i + 23 : 32 * i + 31], 0))
            exponents.append(exponent)
        level = 0
        control = [Cat(self.clear, enable, row)]
        while True:
            stage = Signal(2 + len(row), name=f"control{level}")
            m.d.sync += stage.eq(control[-1])
            control.append(stage)
            if len(exponents) == 1:
                break
            merged = []
            for i in range(0, len(exponents), 2):
                larger = Signal(8, name=f"larger{level}_{i // 2}")
                a, b = exponents[i : i + 2]
                m.d.sync += larger.eq(Mux(a > b, a, b))
                merged.append(larger)
            exponents = merged
            level += 1
        clear, store, at = control[-1][0], control[-1][1], control[-1][2:]

        m.submodules.maxima = maxima = Memory(
            shape=unsigned(8),
            depth=max(self._rows, 2),
            init=[],
            attrs={"ram_style": "distributed"},
        )
        modify = maxima.write_port()
        before = maxima.read_port(domain="comb")
        outside = maxima.read_port(domain="comb")
        valid = Signal(max(self._rows, 2))
        known = Signal()
        m.d.comb += [
            before.addr.eq(at),
            known.eq(valid.bit_select(at, 1) & ~clear),
            modify.addr.eq(at),
            modify.en.eq(store),
            modify.data.eq(Mux(known & (before.data > exponents[0]), before.data, exponents[0])),
            outside.addr.eq(self.max_row),
            self.max.eq(Mux(valid.bit_select(self.max_row, 1), outside.data, 0)),
        ]
        m.d.sync += valid.eq(Mux(clear, 0, valid) | Mux(store, 1 << at, 0))


def stats_latency(lanes: int) -> int:
    """Cycles from a write of `lanes` lanes to the first one whose statistics hold it."""
    return exact_log2(lanes) + 2
