"""A design with a serial line, whose far end is a serial port of this machine: for simulations that
a host talks to as to a board (serial.sv, serial.cpp)."""

from __future__ import annotations

from amaranth import ClockSignal, Instance, Module, Signal
from amaranth.lib.wiring import Component, Out

from terntable.sim.soc import SimulatedSoc

SOURCES = ("serial.sv", "serial.cpp")
"""Files of terntable.sim that the simulation takes besides."""


class SerialBoard(Component):
    """A system on chip with its host link at a serial port. ready: its memory has started up."""

    ready: Signal

    def __init__(self, soc: SimulatedSoc, clock_hz: int, baud: int) -> None:
        self._soc = soc
        self._clock_hz = clock_hz
        self._baud = baud
        super().__init__({"ready": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.soc = soc = self._soc
        m.submodules.line = Instance(
            "serial_line",
            p_CLOCK_HZ=self._clock_hz,
            p_BAUD=self._baud,
            i_clk=ClockSignal("sync"),
            i_tx=soc.tx,
            o_rx=soc.rx,
        )
        m.d.comb += self.ready.eq(soc.ready)
        return m
