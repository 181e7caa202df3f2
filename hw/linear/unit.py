"""The linear unit: engine and elementwise epilogue."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..config import AcceleratorConfig
from ..elementwise.epilogue import Epilogue, beat_layout
from ..elementwise.rows import stats_latency
from ..fp import delay
from ..interfaces import RowReadSignature, command_layout, op_view
from ..isa import Mode, Op
from ..modules import ModuleLibrary
from ..skid import Skid
from .control import a8_words
from .engine import LinearEngine

_PASSED_UP = (
    "factor", "x_read", "x_write", "f_write", "rope_read", "scales", "logits",
)  # fmt: skip


class LinearUnit(Component):
    """Executes LINEAR commands: int8 activations by ternary weights, then what `mode` asks for.

    cmd, busy: as every unit; busy falls when the epilogue has nothing in flight and its writes to
    DRAM are acknowledged. making, made: the vector unit is at work; the rows of activations that it
    has completed, for a command with `follow`. finished: tokens whose rows of X or F are complete,
    with their statistics; counted from a command's start. weights: index words of the fetch unit,
    taken while the ring has room, command or not. a8_read: rows of activations, word k_tile.
    factor, x_read, x_write, f_write, rope_read, scales, logits, argmax, argmax_logit: see Epilogue.
    clear_x, clear_f: strobe at the start of a command that writes X or F from row 0 on, before its
    first write: rows that several commands make keep the statistics of all. weight_wait: the engine
    stands still for want of weights in this cycle. moved: weights are swept, or sums taken by the
    epilogue, in this cycle. left: weights or scales were fetched and not used; of the cycle before.
    Throughput: see LinearEngine. Reset: idle, ring empty.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = c = config
        self._library = library
        self._epilogue = Epilogue(c)
        members = self._epilogue.signature.members
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "weights": In(stream.Signature(unsigned(c.word_bits))),
                "a8_read": Out(RowReadSignature(c.chunk, a8_words(c), 8 * c.tile_inputs)),
                **{name: members[name] for name in _PASSED_UP},
                "making": In(1),
                "made": In(range(c.chunk + 1)),
                "finished": Out(range(c.chunk + 1)),
                "argmax": Out(32),
                "argmax_logit": Out(32),
                "clear_x": Out(1),
                "clear_f": Out(1),
                "weight_wait": Out(1),
                "left": Out(1),
                "moved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = LinearEngine(self._config, self._library)
        m.submodules.epilogue = epilogue = self._epilogue
        args = op_view(engine.command, Op.LINEAR)
        mode, anew = args["mode"], engine.start & (args["first_row"] == 0)

        # A token's last beat, on its way through the epilogue and the statistics of its row.
        settled = Skid.LATENCY + Epilogue.GLU_LATENCY + stats_latency(self._config.lanes)
        m.d.sync += self.finished.eq(self.finished + delay(m, engine.closed, settled))
        with m.If(engine.start):
            m.d.sync += self.finished.eq(0)

        connect(m, flipped(self.weights), engine.weights)
        connect(m, engine.a8_read, flipped(self.a8_read))
        m.submodules.beats = beats = Skid(beat_layout(self._config))
        connect(m, engine.o, beats.i)
        connect(m, beats.o, epilogue.i)
        for name in _PASSED_UP:
            connect(m, flipped(getattr(self, name)), getattr(epilogue, name))
        # A command's last beat is in the epilogue before the engine has ended it.
        idle = Signal()
        m.d.sync += idle.eq(epilogue.idle)
        m.d.comb += [
            engine.cmd.payload.eq(self.cmd.payload),
            engine.cmd.valid.eq(self.cmd.valid & idle),
            self.cmd.ready.eq(engine.cmd.ready & idle),
            self.busy.eq(engine.busy | ~idle),
            engine.making.eq(self.making),
            engine.made.eq(self.made),
            epilogue.command.eq(engine.command),
            epilogue.start.eq(engine.start),
            self.argmax.eq(epilogue.argmax),
            self.argmax_logit.eq(epilogue.argmax_logit),
            self.weight_wait.eq(engine.weight_wait),
        ]
        m.d.sync += [
            self.left.eq(engine.weights_left | epilogue.scales_left),
            self.clear_x.eq(anew & (mode == Mode.RESIDUAL)),
            self.clear_f.eq(anew & (mode != Mode.RESIDUAL) & (mode != Mode.HEAD)),
            self.moved.eq(engine.sweeping | (beats.o.valid & beats.o.ready)),
        ]
        return m
