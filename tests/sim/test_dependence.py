"""Valid never looks at its own ready in the same cycle: all streams of an accelerator, and planted
ones that do."""

from __future__ import annotations

import pytest
from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from terntable.hw.axi.width import WidthConverter
from terntable.hw.config import load_config
from terntable.hw.link.host_link import HostLink
from terntable.sim.contract import watched, watched_design
from terntable.sim.dependence import valid_waits_for_ready
from terntable.sim.harness import block_verilog


class Waiting(Component):
    """Offers words; `how` its valid or payload looks at ready."""

    __module__ = "terntable.hw.planted"

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.width = width = WidthConverter(8, 8)
        connect(m, flipped(self.i), width.i)
        late = Signal()
        m.d.sync += late.eq(self.o.ready)
        gate = late if self.how == "a cycle later" else self.o.ready
        in_valid, in_payload = self.how in ("valid", "a cycle later"), self.how == "payload"
        m.d.comb += [
            self.o.valid.eq(width.o.valid & (gate if in_valid else 1)),
            self.o.payload.eq(width.o.payload + (gate if in_payload else 0)),
            width.o.ready.eq(self.o.ready),
        ]
        return m


@pytest.mark.parametrize(
    ("how", "waiting"),
    [
        ("never", []),
        ("valid", ["watch_o"]),
        ("payload", ["watch_o"]),
        ("a cycle later", []),  # what a reader shows that is ready only after valid
    ],
)
def test_planted(how: str, waiting: list[str]) -> None:
    with watched(tap=True):
        verdict = valid_waits_for_ready(block_verilog(Waiting(how), "block"), "block")
    assert verdict.streams == ["watch_o", "width.watch_o"]
    assert verdict.waiting == waiting


def test_no_stream_of_an_accelerator() -> None:
    design = watched_design(load_config("test"), tap=True)
    verdict = valid_waits_for_ready(design.verilog, "terntable")
    assert len(verdict.streams) > 80
    assert verdict.waiting == []


def test_no_stream_of_the_host_link() -> None:
    with watched(tap=True):
        link = HostLink(50_000_000, 3_000_000, bus_bits=32, burst_beats=64, size=1 << 25)
        verdict = valid_waits_for_ready(block_verilog(link, "link"), "link")
    assert len(verdict.streams) > 20
    assert verdict.waiting == []
