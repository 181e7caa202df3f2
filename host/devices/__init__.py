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
    note: Callable[[str], None] | None = None,
) -> Device:
    """Open a device by name. `waves` and `note` (called with a line on long steps) are for
    simulators. Raises KeyError for an unknown name."""
    if name == "emulator":
        from .emulator import EmulatorDevice

        return EmulatorDevice(config)
    if name == "sim":
        from .sim import SimDevice

        return SimDevice(config, waves=waves, status=note)
    raise KeyError(name)
