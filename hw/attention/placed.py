"""The rows of multipliers: submodules, or modules that are emitted once."""

from __future__ import annotations

from typing import Any

from amaranth import Module

from ..modules import ModuleLibrary
from ..primitives.dsp48e2 import FAMILIES
from ..primitives.mac import DspMac
from .mac import DotRow, SumRow
from .shape import AttentionShape


def place_rows(
    m: Module,
    library: ModuleLibrary | None,
    name: str,
    row: type[DotRow] | type[SumRow],
    shape: AttentionShape,
) -> list[Any]:
    """As many `row` as the shape has, as submodules `name` 0, 1, .. With a library they are
    placed modules, which have a form for the configuration's part if it has DSP48E2."""
    name_of_module = f"terntable_attention_{name}"
    if library is not None:
        device = shape.config.device
        has_blocks = device is not None and device.family in FAMILIES
        library.register(name_of_module, row(shape), row(shape, DspMac) if has_blocks else None)
    placed: list[Any] = []
    for a in range(shape.rows):
        placed.append(row(shape) if library is None else library.place(name_of_module))
        m.submodules[f"{name}{a}"] = placed[-1]
    return placed
