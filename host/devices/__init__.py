"""Devices that run an image, behind one interface. Importing this needs no gateware package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from terntable.hw.config import AcceleratorConfig

from .base import Device

DEVICES = ("emulator", "sim")
"""Names that `open_device` knows."""


def open_device(
    name: str,
    config: AcceleratorConfig,
    *,
    waves: Path | None = None,
    verilog: str | None = None,
    note: Callable[[str], None] | None = None,
) -> Device:
    """Open a device by name. Raises KeyError for an unknown one.

    For simulators: `waves` names a file, `verilog` takes the place of the generated design's text,
    `note` is called with a line before steps that take time.
    """
    if name == "emulator":
        from .emulator import EmulatorDevice

        return EmulatorDevice(config)
    if name == "sim":
        from .sim import SimDevice

        design = None
        if verilog is not None:
            from terntable.sim.accelerator import Design, design_of

            design = Design(verilog, design_of(config, note).vlt)
        return SimDevice(config, waves=waves, verilog=design, status=note)
    raise KeyError(name)
