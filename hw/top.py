"""The accelerator: units, row memories and the wires between them."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, ResetInserter
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from . import isa
from .attention.unit import AttentionUnit
from .axi.bus import AXI4LiteSignature, AXI4Signature
from .axi.control import ControlPort
from .axi.dma import Dma
from .config import AcceleratorConfig
from .control.load import LoadUnit
from .control.sequencer import Sequencer
from .control.status import COUNTED, CallStatus
from .control.watchdog import Watchdog
from .elementwise.rows import RowMemory
from .elementwise.vector import VectorUnit
from .interfaces import row_words
from .linear.fetch import FetchUnit
from .linear.unit import LinearUnit
from .modules import ModuleLibrary


class Terntable(Component):
    """One accelerator: an AXI4-Lite control port, `ports` AXI4 masters, one interrupt.

    The host writes an image (weights, program, tables) and a chunk's embedding rows to DRAM,
    then starts a call; the program runs without it until the logits lie in DRAM. Throughput and
    latency are those of the units below. Reset: synchronous, or CONTROL's soft reset, which
    spares the control port and ends what is outstanding on the bus.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary) -> None:
        self._config = config
        self._library = library
        super().__init__(
            {
                "s_axil": In(AXI4LiteSignature()),
                **{f"m_axi{p}": Out(AXI4Signature(config.bus_bits)) for p in range(config.ports)},
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        m.submodules.control = control = ControlPort(c)
        m.submodules.status = status = CallStatus()
        m.submodules.watchdog = watchdog = Watchdog()
        m.submodules.dma = dma = Dma(c)
        units: dict[str, Component] = {
            "sequencer": Sequencer(c),
            "fetch": FetchUnit(c),
            "load": LoadUnit(c),
            "vector": VectorUnit(c),
            "linear": LinearUnit(c, self._library),
            "attention": AttentionUnit(c, self._library),
        }
        for name, unit in units.items():
            m.submodules[name] = ResetInserter(status.reset_units)(unit)
        sequencer, fetch, load, vector, linear, attention = units.values()

        # Row memories: residual, other rows, int8 codes, gains, RoPE.
        hidden, row = row_words(c, c.max_hidden), row_words(c, c.longest_row)
        tiles = c.k_tiles(c.longest_row)
        style = "ultra" if c.rows_in_uram else None
        m.submodules.x = x = RowMemory(
            c.chunk, hidden, c.lanes, 32, readers=2, writers=2, stats=True, ram_style=style
        )
        m.submodules.f = f = RowMemory(
            c.chunk, row, c.lanes, 32, writers=2, stats=True, ram_style=style
        )
        m.submodules.a8 = a8 = RowMemory(c.chunk, tiles, 1, 8 * c.tile_inputs, cut=True)
        m.submodules.gain = gain = RowMemory(1, row, c.lanes, 32, ram_style=style)
        head = row_words(c, c.max_head_dim)
        # Half of a block memory's depth and less is better off in LUTs.
        m.submodules.rope = rope = RowMemory(
            c.chunk, head, c.lanes, 32, ram_style="distributed" if c.chunk * head <= 256 else None
        )

        # The host's side: registers, status, memory ports.
        connect(m, flipped(self.s_axil), control.s_axil)
        for p in range(c.ports):
            connect(m, getattr(dma, f"m_axi{p}"), flipped(getattr(self, f"m_axi{p}")))
        for name in ("program", "tokens", "position", "chunk"):
            m.d.comb += getattr(sequencer, name).eq(getattr(control, name))
        m.d.comb += [
            dma.base.eq(Cat(control.base_lo, control.base_hi)),
            dma.limit.eq(control.limit),
            dma.write_base.eq(control.write_base),
            dma.flush.eq(status.reset_units),
            status.control.eq(control.control),
            status.irq_enable.eq(control.irq_enable[0]),
            status.sequencer_busy.eq(sequencer.busy),
            status.sequencer_done.eq(sequencer.done),
            status.sequencer_error.eq(sequencer.error),
            status.dma_error.eq(dma.error),
            status.dma_idle.eq(dma.idle),
            status.watchdog_error.eq(watchdog.error),
            status.program.eq(control.program),
            status.index.eq(sequencer.index),
            status.unit_index.eq(sequencer.unit_index),
            status.read_beats.eq(dma.read_beats),
            status.write_beats.eq(dma.write_beats),
            sequencer.start.eq(status.start),
            sequencer.halt.eq(status.halt),
            sequencer.left.eq(linear.left),
            self.irq.eq(status.irq),
            control.argmax.eq(linear.argmax),
            control.argmax_logit.eq(linear.argmax_logit),
            control.read_beats.eq(status.read_beat_count),
            control.write_beats.eq(status.write_beat_count),
        ]
        for name in (
            "status",
            "error_code",
            "error_unit",
            "error_address",
            "error_command",
            "cycles",
            "unit_state",
            *(f"cycles_{n}" for n in COUNTED),
        ):
            m.d.comb += getattr(control, name).eq(getattr(status, name))

        # Commands.
        for index, unit in enumerate((fetch, load, vector, linear, attention)):
            name = isa.Unit(index).name.lower()
            connect(m, getattr(sequencer, f"cmd_{name}"), unit.cmd)
            m.d.comb += [
                getattr(sequencer, f"busy_{name}").eq(unit.busy),
            ]
            m.d.sync += status.active[index].eq(unit.busy)
        m.d.sync += status.active[len(isa.Unit)].eq(linear.weight_wait)

        # Progress.
        moved = (sequencer.moved, vector.moved, linear.moved, attention.moved)
        m.d.comb += [
            watchdog.running.eq(status.running),
            watchdog.moved.eq(Cat(*moved, dma.read_beats.any(), dma.write_beats).any()),
            watchdog.limit.eq(control.watchdog),
            watchdog.outstanding.eq(dma.outstanding),
            watchdog.busy.eq(status.active[: len(isa.Unit)]),
            watchdog.weight_wait.eq(linear.weight_wait),
        ]

        # Rows are handed on one by one, from the linear unit to the vector unit and back, KV heads
        # from the vector unit to attention.
        m.d.comb += [
            attention.heads_ready.eq(Mux(vector.busy, vector.heads_done, ~0)),
            vector.making.eq(linear.busy),
            vector.made.eq(linear.finished),
            vector.x_taken.eq(linear.x_read.en),
            linear.making.eq(vector.busy),
            linear.made.eq(vector.done),
        ]

        # DRAM channels.
        for p in range(c.ports):
            connect(m, getattr(fetch, f"port{p}"), getattr(dma, f"weights{p}"))
            connect(m, getattr(attention, f"kv{p}"), getattr(dma, f"kv{p}"))
        connect(m, load.load, dma.load)
        connect(m, sequencer.read, dma.program)
        connect(m, vector.kv, dma.kv_write)
        connect(m, linear.logits, dma.logits)

        # Data: weights, row memories, scales.
        connect(m, fetch.o, linear.weights)
        connect(m, load.scales, linear.scales)
        connect(m, linear.a8_read, a8.read0)
        connect(m, linear.x_read, x.read0)
        connect(m, linear.rope_read, rope.read0)
        connect(m, linear.x_write, x.write0)
        connect(m, linear.f_write, f.write0)
        connect(m, load.x_write, x.write1)
        connect(m, load.rope_write, rope.write0)
        connect(m, load.gain_write, gain.write0)
        connect(m, vector.x_read, x.read1)
        connect(m, vector.f_read, f.read0)
        connect(m, vector.gain_read, gain.read0)
        connect(m, vector.a8_write, a8.write0)
        connect(m, vector.factor, linear.factor)
        connect(m, vector.q_write, attention.q_write)
        connect(m, vector.q_scale, attention.q_scale)
        connect(m, attention.o_write, f.write1)
        for memory, name in ((x, "x"), (f, "f")):
            m.d.comb += [
                memory.max_row.eq(getattr(vector, f"{name}_max_row")),
                getattr(vector, f"{name}_max").eq(memory.max),
            ]
        m.d.comb += [
            x.clear.eq(linear.clear_x | load.clear_x),
            f.clear.eq(linear.clear_f | attention.clear_o),
        ]
        return m
