"""The linear engine: weights and int8 activations in, exact integer sums out."""

from __future__ import annotations

import numpy as np
from amaranth import Module, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from numpy.typing import NDArray

from ..config import AcceleratorConfig
from ..elementwise.epilogue import beat_layout
from ..fp import delay
from ..interfaces import RowReadSignature, command_layout
from ..modules import ModuleLibrary
from . import accumulate, lookup, ring, select, simd_array, skew
from .accumulate import Accumulator
from .control import LinearControl, a8_words
from .drain import Drain
from .lookup import LookupArray
from .ring import WeightRing
from .select import SelectArray
from .simd_array import SimdArray

Array = LookupArray | SimdArray | SelectArray


def make_array(config: AcceleratorConfig, library: ModuleLibrary | None) -> tuple[Array, int, int]:
    """The configuration's array, its latency in cycles, and the cycles that a load takes."""
    if config.array == "select_add":
        return SelectArray(config, library), select.latency(config), 1
    if skew.available(config):
        array = SimdArray(config, library)
        return array, simd_array.latency(config), simd_array.load_cycles(config)
    return LookupArray(config, library), lookup.latency(config), 1


def reference(
    codes: NDArray[np.integer], digits: NDArray[np.integer], config: AcceleratorConfig,
    tile_words: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Sums [tokens, rows] of codes [tokens, k_tiles * tile_inputs] with a stream of weight digits
    (trits.order_digits), rows padded to whole words."""
    c = config
    k_tiles = codes.shape[1] // c.tile_inputs
    words = digits.size // (k_tiles * c.word_trits)
    weights = np.zeros((words * c.rows, codes.shape[1]), np.int64)
    at = 0
    for first in range(0, words, tile_words):
        n = min(tile_words, words - first)
        part = digits[at : at + k_tiles * n * c.word_trits].astype(np.int64) - 1
        at += part.size
        part = part.reshape(k_tiles, n * c.rows, c.tile_inputs).transpose(1, 0, 2)
        weights[first * c.rows : (first + n) * c.rows] = part.reshape(n * c.rows, -1)
    return np.asarray(codes, np.int64) @ weights.T


class LinearEngine(Component):
    """A LINEAR command up to the epilogue: see LinearControl for the loops, Drain for the beats.

    cmd, busy: as every unit; busy falls after the last beat was taken from `o`. start: strobe one
    cycle after the command; `command` holds it from then on. weights: index words, taken whenever
    the ring has room, before, during and after commands. a8_read: rows of int8 activations, word
    k_tile. o: beats for the epilogue; stalls. weight_wait, sweeping: the array waits for a word of
    weights, or uses one, in this cycle. weights_left: there are words in the ring. making, made:
    the vector unit is at work; the rows of activations that it has completed. closed: tokens whose
    last beats were taken in the cycle before.

    Throughput: a K tile of a group of tokens takes gap_cycles + tile_words cycles (see
    LinearControl); tiles follow without a gap while the drain of the one before takes less time
    than a tile.
    Numbers: exact for sums below 2**23. Reset: ring empty, idle.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = c = config
        self._library = library
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "start": Out(1),
                "command": Out(command_layout()),
                "weights": In(stream.Signature(unsigned(c.word_bits))),
                "a8_read": Out(RowReadSignature(c.chunk, a8_words(c), 8 * c.tile_inputs)),
                "making": In(1),
                "made": In(range(c.chunk + 1)),
                "o": Out(stream.Signature(beat_layout(c))),
                "closed": Out(range(c.tokens + 1)),
                "weight_wait": Out(1),
                "weights_left": Out(1),
                "sweeping": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        array, array_latency, load_cycles = make_array(c, self._library)
        m.submodules.control = control = LinearControl(c, load_cycles)
        m.submodules.ring = weights = WeightRing(c)
        m.submodules.array = array
        m.submodules.accumulator = accumulator = Accumulator(c)
        m.submodules.drain_beats = drain = Drain(c)

        connect(m, flipped(self.cmd), control.cmd)
        connect(m, control.a8_read, flipped(self.a8_read))
        connect(m, flipped(self.weights), weights.i)
        connect(m, control.jobs, drain.job)
        connect(m, accumulator.o, drain.i)
        connect(m, drain.o, flipped(self.o))
        m.d.comb += [
            self.busy.eq(control.busy),
            self.start.eq(control.start),
            self.command.eq(control.command),
            self.weight_wait.eq(control.weight_wait),
            self.weights_left.eq(weights.held),
            self.sweeping.eq(control.step),
            control.available.eq(weights.valid),
            weights.step.eq(control.step),
            weights.free.eq(control.free),
            weights.rewind.eq(control.rewind),
            array.load.eq(control.load),
            array.activations.eq(self.a8_read.data),
            array.build.eq(control.build),
            array.digits.eq(control.digits),
            array.address.eq(control.address),
            array.index.eq(weights.data),
            array.old.eq(accumulator.old),
            array.use_old.eq(accumulator.use_old),
            accumulator.sums.eq(array.sums),
            accumulator.drain.eq(control.jobs.valid & drain.job.ready),
            accumulator.drain_half.eq(control.jobs.payload.half),
            accumulator.drain_words.eq(control.jobs.payload.words),
            control.finished.eq(accumulator.finished),
            control.drained.eq(drain.done),
            control.making.eq(self.making),
            control.made.eq(self.made),
            self.closed.eq(drain.closed),
        ]
        if c.table_buffers == 2:
            bank = delay(m, control.sweep_bank, ring.LATENCY)
            m.d.comb += [array.build_bank.eq(control.build_bank), array.index_bank.eq(bank)]
        issue = control.issue
        for n in range(ring.LATENCY + array_latency - accumulate.LEAD):
            issue_next = Signal.like(issue, name=f"issue{n}")
            m.d.sync += issue_next.eq(issue)
            issue = issue_next
        m.d.comb += accumulator.issue.eq(issue)
        return m
