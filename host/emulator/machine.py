"""The accelerator's state and what each command does to it.

A Machine holds an image's memory and runs the program found there: it knows commands, not models.
Units work one after the other, which is equivalent because the wait masks order every dependence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from terntable.host.devices.base import CallResult, DeviceError, Progress
from terntable.host.emulator.attention import KvCodes, attend
from terntable.host.emulator.matrix import Matrix
from terntable.host.head import HEAD_MAX, combine_planes
from terntable.host.packing import TilePlan, matrix_from_words, unpack_stream
from terntable.hw import isa, numeric
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.isa import Command, Dest, Mode, Op, Source

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

    x, f, o   rows of residual, linear and attention outputs, binary32 [chunk, width]
    a8        quantised activations as binary32 integers [chunk, k]
    factor    what turns a token's integer sums back, binary32 [chunk]
    q, q_scale  int16 codes as binary64 [heads, chunk, dims], binary32 [heads, chunk]
    acc       integer sums of the last LINEAR [tokens, rows]; HEAD: [1, vocab]
    logits    binary32 [vocab] of the last HEAD
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        longest = max(config.max_hidden, config.max_row)
        rows = config.chunk
        self.x = np.zeros((rows, config.max_hidden), np.float32)
        self.f = np.zeros((rows, config.max_row), np.float32)
        self.o = np.zeros((rows, config.max_row), np.float32)
        self.gain = np.zeros((1, longest), np.float32)
        self.rope = np.zeros((rows, config.max_head_dim), np.float32)
        self.a8 = np.zeros((rows, config.k_tiles(longest) * config.tile_inputs), np.float32)
        self.factor = np.zeros(rows, np.float32)
        self.q = np.zeros((config.max_heads, rows, config.max_head_dim))
        self.q_scale = np.zeros((config.max_heads, rows), np.float32)
        self.scales = np.zeros(0, np.float32)
        self.acc: NDArray = np.zeros((0, 0), np.float32)
        self.logits = np.zeros(0, np.float32)
        self.memory = np.zeros(0, np.uint8)
        self.observer: Observer | None = None
        self._write_base = self._program_at = 0
        self._program: list[Command] | None = None
        self._matrices: dict[int, Matrix] = {}
        self._constants: dict[tuple[int, int], F32] = {}
        self._weight_scales: dict[int, F32] = {}
        self._index = 0
        self._execute = {
            Op.LOAD: self._load, Op.NORM_QUANT: self._norm_quant, Op.KV_QUANT: self._kv_quant,
            Op.LINEAR: self._linear, Op.ATTENTION: self._attention,
        }

    # ------------------------------------------------------------ memory

    def set_memory(self, memory: NDArray[np.uint8], write_base: int, program: int) -> None:
        """Attach an image: all of `memory` lies inside the fence."""
        self.memory, self._write_base, self._program_at = memory, write_base, program
        self.invalidate()

    def invalidate(self) -> None:
        """Forget what was decoded: the constant regions have changed."""
        self._program = None
        self._matrices.clear()
        self._constants.clear()
        self._weight_scales.clear()

    def _fence(self, unit: str, start: int, end: int, write: bool = False) -> None:
        if end > self.memory.size:
            raise DeviceError(
                f"{'write' if write else 'read'} beyond the image's {self.memory.size} bytes",
                unit=unit, address=max(start, self.memory.size), command=self._index,
            )
        if write and start < self._write_base:
            raise DeviceError(
                f"write below the run-time regions ({self._write_base:#x})",
                unit=unit, address=start, command=self._index,
            )

    def _bad(self, what: str) -> DeviceError:
        return DeviceError(f"bad command: {what}", unit="sequencer", command=self._index)

    def _floats(self, unit: str, start: int, count: int) -> F32:
        """Contract numbers from memory; those of constant regions are kept."""
        end = start + 4 * count
        self._fence(unit, start, end)
        if (kept := self._constants.get((start, count))) is not None:
            return kept
        values = numeric.sanitise(self.memory[start:end].view(np.uint32))
        if end <= self._write_base:
            self._constants[start, count] = values
        return values

    def _width(self, elements: int, memory: NDArray, what: str) -> int:
        if not 0 < elements <= memory.shape[1]:
            raise self._bad(f"{what} of {elements} elements, 1 to {memory.shape[1]} fit")
        return elements

    # ------------------------------------------------------------ program

    def prepare(self) -> None:
        """Decode the program and the weights that its FETCH commands stream to its LINEARs."""
        if self._program is not None:
            return
        commands, at = [], self._program_at
        while not commands or commands[-1].op is not Op.END:
            self._index = len(commands)
            self._fence("program", at, at + isa.COMMAND_BYTES)
            try:
                commands.append(isa.decode(self.memory[at : at + isa.COMMAND_BYTES].tobytes()))
            except ValueError as e:
                raise DeviceError(
                    f"bad command: {e}", unit="sequencer", address=at, command=self._index
                ) from None
            at += isa.COMMAND_BYTES
        stream = np.zeros((0, self.config.rows, self.config.tile_inputs), np.int8)
        for self._index, command in enumerate(commands):  # noqa: B020
            if command.op is Op.FETCH:
                fetched = self._fetch(command)
                stream = np.concatenate([stream, fetched]) if len(stream) else fetched
            elif command.op is Op.LINEAR:
                plan = TilePlan(
                    command["k_tiles"], command["tile_words"], command["tiles"],
                    command["last_words"],
                )
                if plan.words > len(stream):
                    raise self._bad(f"{plan.words} weight words wanted, {len(stream)} fetched")
                words, stream = stream[: plan.words], stream[plan.words :]
                self._matrices[self._index] = self._matrix(command, plan, words)
            elif command.op is Op.CHUNK and len(stream):
                raise self._bad(f"{len(stream)} weight words of the chunk are left over")
        self._program = commands

    def _fetch(self, command: Command) -> NDArray[np.int8]:
        config, beats = self.config, command["beats"]
        starts = [command["address"] + p * command["port_stride"] for p in range(config.ports)]
        for start in starts:
            self._fence("weights", start, start + beats * config.bus_bytes)
        parts = [self.memory[s : s + beats * config.bus_bytes] for s in starts]
        words = unpack_stream(config, np.stack(parts), command["words"])
        if len(words) < command["words"]:
            raise self._bad("fewer beats than its weight words take")
        return words

    def _matrix(self, command: Command, plan: TilePlan, words: NDArray[np.int8]) -> Matrix:
        rows, k = command["out_rows"], plan.k_tiles * self.config.tile_inputs
        trits = matrix_from_words(words, plan)
        if not rows <= trits.shape[0] or k > self.a8.shape[1]:
            raise self._bad(f"{rows} rows of {k} inputs: the tiles hold {trits.shape[0]} rows")
        if command["mode"] == Mode.HEAD:
            if rows % isa.PLANES:
                raise self._bad(f"{rows} rows of a head: a multiple of {isa.PLANES} is expected")
            return Matrix(combine_planes(trits[:rows]), HEAD_MAX)
        if rows % self.config.lanes:
            raise self._bad(f"{rows} rows: a multiple of {self.config.lanes} is expected")
        return Matrix(trits[:rows], 1)

    def run(
        self, tokens: int, position: int, chunk: int, progress: Progress | None = None
    ) -> CallResult:
        """One call: the program for each chunk of `tokens` tokens, then its tail."""
        self.prepare()
        program = self._program
        if program is None:
            raise self._bad("no program")
        now, at = Chunk(position, min(chunk, tokens), 0), 0
        while (command := program[at]).op is not Op.END:
            self._index = at
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

    # ------------------------------------------------------------ commands

    def _load(self, command: Command, now: Chunk) -> None:
        dest, address, stride = command["dest"], command["address"], command["row_bytes"]
        if dest == Dest.SCALE:
            self.scales = self._floats("load", address, command["count"])
            return
        width = command["ew"] * self.config.lanes
        if dest == Dest.GAIN:
            self._width(width, self.gain, "a gain row")
            self.gain[0, :width] = self._floats("load", address, width)
            return
        rows, first = (self.x, now.done) if dest == Dest.RESIDUAL else (self.rope, now.position)
        self._width(width, rows, "a row")
        for t in range(now.tokens):
            rows[t, :width] = self._floats("load", address + (first + t) * stride, width)

    def _norm_quant(self, command: Command, now: Chunk) -> None:
        source = {Source.RESIDUAL: self.x, Source.ROW: self.f, Source.ATTENTION: self.o}.get(
            Source(command["source"])
        )
        if source is None:
            raise self._bad(f"source {command['source']}")
        width = self._width(command["ew"] * self.config.lanes, source, "a row")
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
        heads, kv_heads = command["heads"], command["kv_heads"]
        dims = command["head_ew"] * self.config.lanes
        if heads > self.q.shape[0] or dims > self.q.shape[2]:
            raise self._bad(f"{heads} heads of {dims} dimensions")
        total = heads + 2 * kv_heads
        width = self._width(total * dims, self.f, "a row")
        tokens = now.tokens
        codes, scales = numeric.kv_quant(self.f[:tokens, :width].reshape(tokens, total, dims))
        self.q[:heads, :tokens, :dims] = codes[:, :heads].transpose(1, 0, 2)
        self.q_scale[:heads, :tokens] = numeric.mul(
            scales[:, :heads], np.float32(command["score_scale"])
        ).T
        k, v = slice(heads, heads + kv_heads), slice(heads + kv_heads, total)
        records = np.zeros((tokens, kv_heads, command["record_bytes"]), np.uint8)
        parts = (codes[:, k].astype("<i2"), codes[:, v].astype("<i2"),
                 scales[:, k, None].astype("<f4"), scales[:, v, None].astype("<f4"))
        at = 0
        for part in parts:
            data = np.ascontiguousarray(part).view(np.uint8)
            records[:, :, at : at + data.shape[2]] = data
            at += data.shape[2]
        positions = now.position + np.arange(tokens)
        slots, ports = np.divmod(positions, self.config.ports)
        cache = self._cache(command, now, kv_heads, write=True)
        cache[:, slots, ports] = records.transpose(1, 0, 2)

    def _cache(
        self, command: Command, now: Chunk, kv_heads: int, write: bool
    ) -> NDArray[np.uint8]:
        """A layer's records [kv_heads, slots, ports, record_bytes], a view of the memory."""
        ports, record = self.config.ports, command["record_bytes"]
        first, end = command["address"], now.position + now.tokens
        slots = -(-end // ports)
        strides = (command["head_stride"], record, command["port_stride"])
        reach = sum((n - 1) * s for n, s in zip((kv_heads, slots, ports), strides, strict=True))
        unit = "kv write" if write else "kv"
        self._fence(unit, first, first + reach + record, write)
        return as_strided(
            self.memory[first:], (kv_heads, slots, ports, record), (*strides, 1), writeable=write
        )

    def _attention(self, command: Command, now: Chunk) -> None:
        kv_heads, dims = command["kv_heads"], command["head_dims"]
        heads, tokens = kv_heads * command["heads_per_kv"], now.tokens
        end = now.position + tokens
        padded = -(-end // KV_BLOCK) * KV_BLOCK
        if heads > self.q.shape[0] or dims > self.q.shape[2]:
            raise self._bad(f"{heads} heads of {dims} dimensions")
        width = self._width(heads * dims, self.o, "a row")
        cache = self._cache(command, now, kv_heads, write=False)
        records = np.zeros((kv_heads, padded, command["record_bytes"]), np.uint8)
        records[:, :end] = cache.reshape(kv_heads, -1, records.shape[2])[:, :end]
        codes = records[:, :, : 4 * dims].view("<i2")
        scales = records[:, :, 4 * dims : 4 * dims + 8].copy().view("<f4")
        kv = KvCodes(
            codes[:, :, :dims].astype(np.float64), codes[:, :, dims:].astype(np.float64),
            scales[:, :, 0], scales[:, :, 1],
        )
        shape = (kv_heads, heads // kv_heads * tokens)
        out = attend(
            self.q[:heads, :tokens, :dims].reshape(*shape, dims),
            self.q_scale[:heads, :tokens].reshape(shape),
            kv,
            np.tile(now.position + np.arange(tokens), heads // kv_heads),
        )
        rows = out.reshape(heads, tokens, dims).transpose(1, 0, 2)
        self.o[:tokens, :width] = rows.reshape(tokens, width)

    def _linear(self, command: Command, now: Chunk) -> None:
        matrix, mode = self._matrices[self._index], command["mode"]
        rows = self.config.head_digits if command["single"] else now.tokens
        acc = matrix.dot(self.a8[:rows, : matrix.k])
        if mode == Mode.HEAD:
            self._head(command, acc)
            return
        self.acc = acc
        written = matrix.rows // 2 if mode in (Mode.GLU_RELU2, Mode.GLU_SILU) else matrix.rows
        self._width(written, self.x if mode == Mode.RESIDUAL else self.f, "a row")
        width = matrix.rows
        y = numeric.mul(numeric.from_int(acc), self._row_scales(command, rows, width))
        if mode == Mode.PLAIN:
            self.f[:rows, :width] = y
        elif mode == Mode.RESIDUAL:
            self.x[:rows, :width] = numeric.add(self.x[:rows, :width], y)
        elif mode == Mode.QKV:
            self.f[:rows, :width] = self._rotate(command, y)
        elif mode in (Mode.GLU_RELU2, Mode.GLU_SILU):
            gate, up = y[:, 0::2], y[:, 1::2]
            if mode == Mode.GLU_SILU:
                active = numeric.silu(gate)
            else:
                positive = np.maximum(gate, np.float32(0))
                active = numeric.mul(positive, positive)
            self.f[:rows, :written] = numeric.mul(active, up)
        else:
            raise self._bad(f"mode {mode}")

    def _segments(self, command: Command, width: int) -> list[slice]:
        """Rows of the segments 0, 1, 2."""
        lanes = self.config.lanes
        ends = [min(command[f"segment{i}"] * lanes, width) for i in range(2)] + [width]
        starts = [0, *ends[:2]]
        return [slice(a, b) for a, b in zip(starts, ends, strict=True)]

    def _row_scales(self, command: Command, rows: int, width: int) -> F32:
        """fl(factor * weight scale) of each token and output row [rows, width]."""
        if (weight := self._weight_scales.get(self._index)) is None:
            weight = np.empty(width, np.float32)
            for i, part in enumerate(self._segments(command, width)):
                for j, parity in enumerate(("even", "odd")):
                    weight[part][j::2] = np.float32(command[f"scale{i}_{parity}"])
            weight = self._weight_scales[self._index] = numeric.sanitise(weight)
        return numeric.mul(self.factor[:rows, None], weight)

    def _rotate(self, command: Command, y: F32) -> F32:
        dims = command["head_ew"] * self.config.lanes
        out = y.copy()
        rope = self.rope[: len(y), None, :dims]
        cosine, sine = rope[..., 0::2], rope[..., 1::2]
        for i, part in enumerate(self._segments(command, y.shape[1])):
            if not command["rope"] >> i & 1 or part.start == part.stop:
                continue
            heads = y[:, part].reshape(len(y), -1, dims)
            even, odd = heads[..., 0::2], heads[..., 1::2]
            turned = np.empty_like(heads)
            turned[..., 0::2] = numeric.sub(numeric.mul(even, cosine), numeric.mul(odd, sine))
            turned[..., 1::2] = numeric.add(numeric.mul(odd, cosine), numeric.mul(even, sine))
            out[:, part] = turned.reshape(len(y), -1)
        return out

    def _head(self, command: Command, acc: NDArray) -> None:
        whole = acc[0].astype(np.int64)
        if self.config.head_digits == 2:
            whole = 256 * whole + acc[1].astype(np.int64)
        if self.scales.size < whole.size:
            raise self._bad(f"{whole.size} rows, {self.scales.size} scales were loaded")
        scale = numeric.mul(self.factor[0], self.scales[: whole.size])
        self.acc = whole[None]
        self.logits = numeric.mul(numeric.from_int(whole), scale)
        address, size = command["address"], 4 * whole.size
        self._fence("logits write", address, address + size, write=True)
        self.memory[address : address + size] = self.logits.view(np.uint8)
