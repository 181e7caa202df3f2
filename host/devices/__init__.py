"""Devices that run an image, behind one interface. Importing this needs no gateware package."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from terntable.host.model import Model
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat

from .base import Device
from .transport import Transport

DEVICES = ("emulator", "sim", "torch", "triton", "board")
"""Names that `open_device` knows."""

TAKES_MODEL = ("torch", "triton")
"""Devices that run the model itself: their images hold no weights (`compiler.outline`)."""

IMAGE_KV = tuple(kv.label for kv in KvFormat)
"""Formats of the KV cache of devices that run images, which hold it: the default first."""

_PACKAGES = {"torch": ("torch",), "triton": ("torch", "triton")}
"""Python packages of a device that are extras, the extra called like the device."""


def missing(name: str) -> str | None:
    """A line that says what device `name` lacks here and how to install it; None where Python
    has all of its packages."""
    lacking = [p for p in _PACKAGES.get(name, ()) if importlib.util.find_spec(p) is None]
    if not lacking:
        return None
    return (
        f"device {name} needs the Python package {' and '.join(lacking)}:"
        f" pip install 'terntable[{name}]', in a checkout make venv-torch"
    )


def open_device(
    name: str,
    config: AcceleratorConfig,
    *,
    model: Model | None = None,
    dtype: str | None = None,
    kv: str | None = None,
    waves: Path | None = None,
    verilog: str | None = None,
    note: Callable[[str], None] | None = None,
    transport: Transport | None = None,
) -> Device:
    """Open a device by name. Raises KeyError for an unknown one.

    For devices in TAKES_MODEL: `model` is what they run, `dtype` one of `model_device.DTYPES`
    (binary32 by default), `kv`, of triton, one of `triton.KV_KINDS` (binary16 by default). For
    simulators: `waves` names a file, `verilog` takes the place of the generated design's text.
    `note` is called with a line before steps that take time. For a board: the `transport` to it,
    which the device closes.
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
    if name == "board":
        from .board import BoardDevice

        if transport is None:
            raise ValueError("device board needs a transport")
        return BoardDevice(config, transport)
    if name in TAKES_MODEL:
        if model is None:
            raise ValueError(f"device {name} needs the model")
        from .model_device import DTYPES

        if name == "torch":
            from .torch import TorchDevice

            return TorchDevice(config, model, dtype or DTYPES[0], note)
        from .triton import KV_KINDS, TritonDevice

        return TritonDevice(config, model, dtype or DTYPES[0], note, kv or KV_KINDS[0])
    raise KeyError(name)
