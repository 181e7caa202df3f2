"""The residual stream between layers, as the emulator passes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terntable.host.emulator.machine import Chunk, Machine
from terntable.hw.isa import Command, Op, Source


class ResidualTap:
    """An Observer that keeps the last token's residual stream after each layer of a call.

    A program norms the residual stream twice a layer and once before the head: what the first norm
    of a layer (from the second layer on) or the head's reads is what the layer before has made.
    """

    def __init__(self, hidden: int) -> None:
        self._hidden = hidden
        self._rows: dict[int, NDArray[np.float32]] = {}

    def __call__(self, index: int, command: Command, chunk: Chunk, machine: Machine) -> None:
        if command.op is Op.NORM_QUANT and command["source"] == Source.RESIDUAL:
            self._rows[index] = machine.x[chunk.tokens - 1, : self._hidden].copy()

    def layers(self) -> NDArray[np.float32]:
        """binary32 [layers, hidden] of the last call; norms in the program's order."""
        return np.stack([row for _, row in sorted(self._rows.items())][2::2])
