"""The accelerator's state and what each command does to it.

A Machine holds an image's memory and runs the program found there: it knows commands, not models.
That every command fits the configuration was checked when the program was read.
Units work one after the other, which is equivalent because the wait masks order every dependence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from terntable.host.devices.base import CallResult, Progress
from terntable.host.emulator.attention import KvCodes, attend
from terntable.host.emulator.memory import Memory
from terntable.host.emulator.program import Program, read_program
from terntable.hw import numeric
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.isa import Command, Dest, KvFormat, Mode, Op, Source
from terntable.hw.kv_records import pack_records, unpack_records

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """The tokens a command runs for."""

    position: int
    tokens: int
    done: int


Observer = Callable[[int, Command, Chunk, "Machine"], None]
"""Called after each command with its index, itself, its chunk and the machine."""


class Machine:
    """One accelerator with its memory.

    x, f      rows of residual, and of linear and attention outputs, binary32 [chunk, width]
    a8        quantised activations as binary32 integers [chunk, k]
    factor    what turns a token's integer sums back, binary32 [chunk]
    q, q_scale  int16 codes as binary64 [heads, chunk, dims], binary32 [heads, chunk]
    acc       integer sums of the last LINEAR [tokens, rows]; HEAD: [1, vocab]
    logits    binary32 [vocab] of the last HEAD
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        longest = config.longest_row
        rows = config.chunk
        self.x = np.zeros((rows, config.max_hidden), np.float32)
        self.f = np.zeros((rows, config.max_row), np.float32)
        self.gain = np.zeros((1, longest), np.float32)
        self.rope = np.zeros((rows, config.max_head_dim), np.float32)
        self.a8 = np.zeros((rows, config.k_tiles(longest) * config.tile_inputs), np.float32)
        self.factor = np.zeros(rows, np.float32)
        self.q = np.zeros((config.max_heads, rows, config.max_head_dim))
        self.q_scale = np.zeros((config.max_heads, rows), np.float32)
        self.scales = np.zeros(0, np.float32)
        self.acc: NDArray = np.zeros((0, 0), np.float32)
        self.logits = np.zeros(0, np.float32)
        self.memory = Memory(np.zeros(0, np.uint8), 0)
        self.observer: Observer | None = None
        self._program_at = 0
        self._program: Program | None = None
        self._weight_scales: dict[int, F32] = {}
        self._execute = {
            Op.LOAD: self._load,
            Op.NORM_QUANT: self._norm_quant,
            Op.KV_QUANT: self._kv_quant,
            Op.LINEAR: self._linear,
            Op.ATTENTION: self._attention,
        }

    def attach(self, data: NDArray[np.uint8], write_base: int, program: int) -> None:
        """Take an image: its bytes, where it may be written, where its program lies."""
        self.memory, self._program_at = Memory(data, write_base), program
        self.invalidate()

    def invalidate(self) -> None:
        """Forget what was read from the constant regions: they have changed."""
        self.memory = Memory(self.memory.data, self.memory.write_base)
        self._program = None
        self._weight_scales.clear()

    def prepare(self) -> Program:
        """The program, read before the first call if not by now."""
        if self._program is None:
            self._program = read_program(self.config, self.memory, self._program_at)
        return self._program

    def run(
        self, tokens: int, position: int, chunk: int, progress: Progress | None = None
    ) -> CallResult:
        """One call: the program for each chunk of `tokens` tokens, then its tail."""
        program = self.prepare().commands
        now, at = Chunk(position, min(chunk, tokens), 0), 0
        while (command := program[at]).op is not Op.END:
            self.memory.command = at
            if command.op is Op.CHUNK:
                done = now.done + now.tokens
                if progress:
                    progress(done, tokens)
                if done < tokens:
                    now = Chunk(position + done, min(chunk, tokens - done), done)
                    at = 0
                    continue
            elif command.op is not Op.FETCH:
                self._execute[command.op](command, now)
            if self.observer:
                self.observer(at, command, now, self)
            at += 1
        best = int(np.argmax(self.logits)) if self.logits.size else 0
        return CallResult(best, float(self.logits[best]) if self.logits.size else 0.0)

    def execute(self, command: Command, now: Chunk) -> None:
        """One command of a unit other than FETCH, outside of any call."""
        self._execute[command.op](command, now)

    # ------------------------------------------------------------ commands

    def _load(self, command: Command, now: Chunk) -> None:
        dest, address, stride = command["dest"], command["address"], command["row_bytes"]
        if dest == Dest.SCALE:
            self.scales = self.memory.floats("load", address, command["count"])
            return
        width = command["ew"] * self.config.lanes
        if dest == Dest.GAIN:
            self.gain[0, :width] = self.memory.floats("load", address, width)
            return
        rows, first = (self.x, now.done) if dest == Dest.RESIDUAL else (self.rope, now.position)
        for t in range(now.tokens):
            rows[t, :width] = self.memory.floats("load", address + (first + t) * stride, width)

    def _norm_quant(self, command: Command, now: Chunk) -> None:
        source = {int(Source.RESIDUAL): self.x, Source.ROW: self.f}[command["source"]]
        width = command["ew"] * self.config.lanes
        head = bool(command["head"])
        rows = source[now.tokens - 1 : now.tokens] if head else source[: now.tokens]
        digits = self.config.head_digits if head else 1
        codes, factor = numeric.norm_quant(
            rows[:, :width],
            self.gain[0, :width] if command["gain"] else None,
            bool(command["norm"]),
            np.float32(command["inv_n"]),
            np.float32(command["eps"]),
            digits == 2,
        )
        if digits == 2:
            codes = np.concatenate(numeric.head_digits(codes))
        padded = self.config.k_tiles(width) * self.config.tile_inputs
        self.a8[: len(codes), :width] = codes
        self.a8[: len(codes), width:padded] = 0
        self.factor[: len(factor)] = factor

    def _kv_quant(self, command: Command, now: Chunk) -> None:
        kv, kv_heads = KvFormat(command["format"]), command["kv_heads"]
        heads = command["heads_per_kv"] * kv_heads
        dims = command["head_ew"] * self.config.lanes
        total = heads + 2 * kv_heads
        tokens = now.tokens
        rows = self.f[:tokens, : total * dims].reshape(tokens, total, dims)
        codes, scales = numeric.kv_quant(rows[:, :heads], KvFormat.INT16)
        self.q[:heads, :tokens, :dims] = codes.transpose(1, 0, 2)
        self.q_scale[:heads, :tokens] = numeric.mul(scales, np.float32(command["score_scale"])).T
        k = numeric.kv_quant(rows[:, heads : heads + kv_heads], kv)
        v = numeric.kv_quant(rows[:, heads + kv_heads :], kv)
        records = pack_records(self.config, kv, k, v, command["record_bytes"])
        positions = now.position + np.arange(tokens)
        slots, ports = np.divmod(positions, self.config.ports)
        cache = self._cache(command, now, kv_heads, write=True)
        cache[:, slots, ports] = records.transpose(1, 0, 2)

    def _cache(self, command: Command, now: Chunk, kv_heads: int, write: bool) -> NDArray[np.uint8]:
        """A layer's records [kv_heads, slots, ports, record_bytes], a view of the memory."""
        ports, record = self.config.ports, command["record_bytes"]
        first, end = command["address"], now.position + now.tokens
        slots = -(-end // ports)
        strides = (command["head_stride"], record, command["port_stride"])
        reach = sum((n - 1) * s for n, s in zip((kv_heads, slots, ports), strides, strict=True))
        unit = "kv write" if write else "kv"
        self.memory.fence(unit, first, first + reach + record, write)
        return as_strided(
            self.memory.data[first:],
            (kv_heads, slots, ports, record),
            (*strides, 1),
            writeable=write,
        )

    def _attention(self, command: Command, now: Chunk) -> None:
        kv_heads, dims = command["kv_heads"], command["head_dims"]
        heads, tokens = kv_heads * command["heads_per_kv"], now.tokens
        end = now.position + tokens
        padded = -(-end // KV_BLOCK) * KV_BLOCK
        width = heads * dims
        cache = self._cache(command, now, kv_heads, write=False)
        records = np.zeros((kv_heads, padded, command["record_bytes"]), np.uint8)
        records[:, :end] = cache.reshape(kv_heads, -1, records.shape[2])[:, :end]
        codes, words = unpack_records(self.config, KvFormat(command["format"]), records, dims)
        scales = numeric.sanitise(words)
        kv = KvCodes(
            codes[:, :, 0].astype(np.float64),
            codes[:, :, 1].astype(np.float64),
            scales[:, :, 0],
            scales[:, :, 1],
        )
        shape = (kv_heads, heads // kv_heads * tokens)
        out = attend(
            self.q[:heads, :tokens, :dims].reshape(*shape, dims),
            self.q_scale[:heads, :tokens].reshape(shape),
            kv,
            np.tile(now.position + np.arange(tokens), heads // kv_heads),
        )
        rows = out.reshape(heads, tokens, dims).transpose(1, 0, 2)
        self.f[:tokens, :width] = rows.reshape(tokens, width)

    def _linear(self, command: Command, now: Chunk) -> None:
        matrix, mode = self.prepare().matrices[self.memory.command], command["mode"]
        rows = self.config.head_digits if command["single"] else now.tokens
        acc = matrix.dot(self.a8[:rows, : matrix.k])
        if mode == Mode.HEAD:
            self._head(command, acc)
            return
        self.acc = acc
        first, end = command["first_row"], command["first_row"] + matrix.rows
        gated = mode in (Mode.GLU_RELU2, Mode.GLU_SILU)
        written = slice(first // 2, end // 2) if gated else slice(first, end)
        y = numeric.mul(numeric.from_int(acc), self._row_scales(command, rows, matrix.rows))
        if mode == Mode.PLAIN:
            self.f[:rows, written] = y
        elif mode == Mode.RESIDUAL:
            self.x[:rows, written] = numeric.add(self.x[:rows, written], y)
        elif mode == Mode.QKV:
            self.f[:rows, written] = self._rotate(command, y)
        else:
            gate, up = y[:, 0::2], y[:, 1::2]
            if mode == Mode.GLU_SILU:
                active = numeric.silu(gate)
            else:
                positive = np.maximum(gate, np.float32(0))
                active = numeric.mul(positive, positive)
            self.f[:rows, written] = numeric.mul(active, up)

    def _segments(self, command: Command, width: int) -> list[slice]:
        """Rows of the segments 0, 1, 2, counted from the command's first row."""
        lanes, first = self.config.lanes, command["first_row"]
        ends = [min(max(command[f"segment{i}"] * lanes - first, 0), width) for i in range(2)]
        ends.append(width)
        starts = [0, *ends[:2]]
        return [slice(a, b) for a, b in zip(starts, ends, strict=True)]

    def _row_scales(self, command: Command, rows: int, width: int) -> F32:
        """fl(factor * weight scale) of each token and output row [rows, width]."""
        if (weight := self._weight_scales.get(self.memory.command)) is None:
            weight = np.empty(width, np.float32)
            for i, part in enumerate(self._segments(command, width)):
                for j, parity in enumerate(("even", "odd")):
                    weight[part][j::2] = np.float32(command[f"scale{i}_{parity}"])
            self._weight_scales[self.memory.command] = weight
        return numeric.mul(self.factor[:rows, None], weight)

    def _rotate(self, command: Command, y: F32) -> F32:
        dims = command["head_ew"] * self.config.lanes
        rope = self.rope[: len(y), None, :dims]
        cosine, sine = rope[..., 0::2], rope[..., 1::2]
        for first, end in self._rotated(command, y.shape[1]):
            heads = y[:, first:end].reshape(len(y), -1, dims)
            even, odd = heads[..., 0::2], heads[..., 1::2]
            turned = np.empty_like(heads)
            turned[..., 0::2] = numeric.sub(numeric.mul(even, cosine), numeric.mul(odd, sine))
            turned[..., 1::2] = numeric.add(numeric.mul(odd, cosine), numeric.mul(even, sine))
            y[:, first:end] = turned.reshape(len(y), -1)
        return y

    def _rotated(self, command: Command, width: int) -> list[list[int]]:
        """Ranges of rows that are rotated, neighbouring segments joined."""
        ranges: list[list[int]] = []
        for i, part in enumerate(self._segments(command, width)):
            if not command["rope"] >> i & 1 or part.start == part.stop:
                continue
            if ranges and ranges[-1][1] == part.start:
                ranges[-1][1] = part.stop
            else:
                ranges.append([part.start, part.stop])
        return ranges

    def _head(self, command: Command, acc: NDArray) -> None:
        whole = acc[0].astype(np.int64)
        if self.config.head_digits == 2:
            whole = 256 * whole + acc[1].astype(np.int64)
        if self.scales.size < whole.size:
            what = f"{whole.size} rows, {self.scales.size} scales were loaded"
            raise self.memory.bad("command", what, "LINEAR")
        scale = numeric.mul(self.factor[0], self.scales[: whole.size])
        self.acc = whole[None]
        self.logits = numeric.mul(numeric.from_int(whole), scale)
        self.memory.write_floats("logits write", command["address"], self.logits)
