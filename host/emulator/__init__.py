"""Executes images in NumPy, bit for bit as the gateware does."""

from terntable.host.emulator.machine import Chunk, Machine, Observer

__all__ = ["Chunk", "Machine", "Observer"]
