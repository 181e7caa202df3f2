"""Devices that run an image, behind one interface. Importing this needs no gateware package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from terntable.host.model import Model
from terntable.hw.config import AcceleratorConfig

from .base import Device

DEVICES = ("emulator", "sim", "torch", "triton")
"""Names that `open_device` knows."""

TAKES_MODEL = ("torch", "triton")
"""Devices that run the model itself: their images hold no weights (`compiler.outline`)."""


def open_device(
    name: str,
    config: AcceleratorConfig,
    *,
    model: Model | None = None,
    waves: Path | None = None,
    verilog: str | None = None,
    note: Callable[[str], None] | None = None,
) -> Device:
    """Open a device by name. Raises KeyError for an unknown one.

    For devices in TAKES_MODEL: `model` is what they run. For simulators: `waves` names a file,
    `verilog` takes the place of the generated design's text. `note` is called with a line before
    steps that take time.
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
    if name in TAKES_MODEL:
        if model is None:
            raise ValueError(f"device {name} needs the model")
        if name == "torch":
            from .torch import TorchDevice

            return TorchDevice(config, model)
        from .triton import TritonDevice

        return TritonDevice(config, model)
    raise KeyError(name)
