"""AXI4 memory controller of an SDR SDRAM."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..axi.bus import AXI4Signature, Response, read_layout, write_layout
from ..errors import UserError
from ..skid import Skid
from .sdram_bus import SdramSignature
from .sdram_part import SdramCycles, SdramPart
from .sdram_phy import IO_CYCLES
from .sdram_segments import SegmentCutter
from .sdram_select import SegmentSelector
from .sdram_sequencer import SdramSequencer


class SdramController(Component):
    """The memory behind one AXI4 port of `bus_bits` bits; addresses begin at 0.

    Bursts are cut into segments of SEGMENT_BYTES in one row. A write begins when all words of a
    segment have come, a read when there is room for all of its words: neither stalls the pins.
    Answers come in order, reads among reads and writes among writes; a write is acknowledged when
    its last word is on its way to the pins, so that any later read sees it. Words whose strobe is
    low are masked. An access beyond the memory is answered with DECERR and changes nothing.

    Throughput: `data_bits` a cycle but for refreshes, less than 3 % of the time at 100 MHz, on
    bursts of several segments in one direction, random ones included where rows are in other
    banks (1.96 bytes a cycle measured for reads of 256 words one after the other, of 2 that the
    pins move; see tests/hw/soc/test_sdram.py). Latency: from AR to the first word 13 cycles + CAS
    latency + words of the SDRAM in one of the bus, where the row is open. Back-pressure: on all
    channels. Reset: starts the SDRAM up, and forgets what is under way.

    Ports
    -----
    axi : the port.
    pins : of the SDRAM, `io_cycles` registers away: of what is driven and what is sampled, both
        ways together.
    ready : started up.
    """

    SEGMENT_BYTES = 128
    BUFFERED = 4
    """Segments in each data buffer."""
    ANSWERS = 8

    ready: Signal

    def __init__(
        self,
        part: SdramPart,
        bus_bits: int,
        clock_hz: int,
        cas: int = 3,
        io_cycles: int = IO_CYCLES,
    ) -> None:
        if not part.data_bits <= bus_bits <= 8 * part.data_bits:
            raise UserError(
                f"bus_bits is {bus_bits}: the {part.name} takes {part.data_bits} to"
                f" {8 * part.data_bits}"
            )
        self._part, self._bus_bits, self._io_cycles = part, bus_bits, io_cycles
        self._cycles = SdramCycles.of(part, clock_hz, cas)
        super().__init__(
            {
                "axi": In(AXI4Signature(bus_bits)),
                "pins": Out(SdramSignature(part)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        part, bus_bits = self._part, self._bus_bits
        burst = bus_bits // part.data_bits
        beats = self.SEGMENT_BYTES * 8 // bus_bits
        depth = self.BUFFERED * beats
        axi, pins = self.axi, self.pins

        # Commands.
        m.submodules.reads = reads = SegmentCutter(part, bus_bits, beats)
        m.submodules.writes = writes = SegmentCutter(part, bus_bits, beats)
        m.submodules.selector = selector = SegmentSelector(part, beats, depth, self.ANSWERS)
        m.submodules.sequencer = sequencer = SdramSequencer(part, self._cycles, burst, beats)
        connect(m, reads.o, selector.read)
        connect(m, writes.o, selector.write)
        connect(m, selector.o, sequencer.i)
        for channel, cutter in ((axi.ar, reads), (axi.aw, writes)):
            m.d.comb += [
                cutter.i.valid.eq(channel.valid),
                cutter.i.payload.eq(channel.payload),
                channel.ready.eq(cutter.i.ready),
            ]
        m.d.comb += [
            pins.cke.eq(1),
            pins.command.eq(sequencer.command),
            pins.ba.eq(sequencer.ba),
            pins.a.eq(sequencer.a),
            self.ready.eq(sequencer.ready),
        ]
        self._write(m, sequencer, selector, depth)
        self._read(m, sequencer, selector, depth)
        return m

    def _write(
        self, m: Module, sequencer: SdramSequencer, selector: SegmentSelector, depth: int
    ) -> None:
        part, axi, pins = self._part, self.axi, self.pins
        burst = self._bus_bits // part.data_bits
        layout = write_layout(self._bus_bits)
        m.submodules.words = words = SyncFIFOBuffered(width=layout.size, depth=depth)
        word = data.View(layout, words.r_data)
        strobe = sequencer.column & sequencer.access.write
        m.d.comb += [
            words.w_data.eq(axi.w.payload),
            words.w_en.eq(axi.w.valid),
            axi.w.ready.eq(words.w_rdy),
            selector.pushed.eq(axi.w.valid & words.w_rdy),
            words.r_en.eq(strobe),
        ]
        # A bus word goes out from its lowest bits up.
        shift = Signal(self._bus_bits, reset_less=True)
        mask = Signal(self._bus_bits // 8)
        driven = Signal(burst)
        m.d.sync += [
            shift.eq(shift >> part.data_bits),
            mask.eq(mask >> part.data_bits // 8),
            driven.eq(driven >> 1),
        ]
        with m.If(strobe):
            m.d.sync += [
                shift.eq(word.data),
                mask.eq(~word.strb | sequencer.access.bad.replicate(len(word.strb))),
                driven.eq(~0),
            ]
        m.d.comb += [
            pins.dq_o.eq(shift[: part.data_bits]),
            pins.dqm.eq(mask[: part.data_bits // 8]),
            pins.dq_oe.eq(driven[0]),
        ]

        # The selector has kept room.
        m.submodules.answers = answers = SyncFIFO(width=1, depth=self.ANSWERS)
        m.d.comb += [
            answers.w_data.eq(sequencer.access.bad),
            answers.w_en.eq(strobe & sequencer.access.last),
            axi.b.valid.eq(answers.r_rdy),
            axi.b.payload.resp.eq(answers.r_data.replicate(2) & Response.DECERR),
            answers.r_en.eq(axi.b.ready),
            selector.acknowledged.eq(axi.b.valid & axi.b.ready),
        ]

    def _read(
        self, m: Module, sequencer: SdramSequencer, selector: SegmentSelector, depth: int
    ) -> None:
        part, axi = self._part, self.axi
        burst = self._bus_bits // part.data_bits
        # Of each READ until its last word has come: a cycle to the pins, the way, the words.
        tag_layout = data.StructLayout(
            {"valid": unsigned(1), "last": unsigned(1), "bad": unsigned(1)}
        )
        stages = 1 + self._cycles.cas + self._io_cycles + burst - 1
        tags = [Signal(tag_layout, name=f"tag{n}") for n in range(stages)]
        access = sequencer.access
        m.d.sync += Cat(*(tag.as_value() for tag in tags)).eq(
            Cat(
                sequencer.column & ~access.write,
                access.last,
                access.bad,
                *(tag.as_value() for tag in tags[:-1]),
            )
        )
        earlier = Signal((burst - 1) * part.data_bits, reset_less=True)
        whole = Cat(earlier, self.pins.dq_i)
        m.d.sync += earlier.eq(whole[part.data_bits :])

        layout = read_layout(self._bus_bits)
        m.submodules.beats = beats = SyncFIFOBuffered(width=layout.size, depth=depth)
        beat = data.View(layout, beats.w_data)
        m.d.comb += [
            beat.data.eq(whole),
            beat.resp.eq(tags[-1].bad.replicate(2) & Response.DECERR),
            beat.last.eq(tags[-1].last),
            beats.w_en.eq(tags[-1].valid),
        ]
        # A block memory's word is late in its cycle.
        m.submodules.late = late = Skid(layout)
        connect(m, late.o, flipped(axi.r))
        m.d.comb += [
            late.i.valid.eq(beats.r_rdy),
            late.i.payload.eq(beats.r_data),
            beats.r_en.eq(late.i.ready),
            selector.popped.eq(late.i.valid & late.i.ready),
        ]
