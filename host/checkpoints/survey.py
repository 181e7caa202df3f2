"""What a walk through a model's layers shows, without keeping its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from terntable.host.model import Layer, Model, TernaryLinear

_NAMED = 3
"""Matrices of zeros that a line names."""


@dataclass
class Survey:
    """Collected by `see`, layer after layer.

    weights, zeros  ternary weights, and those of them that are 0
    empty           names of matrices whose weights are all 0
    scales          most scales that a matrix has
    outlines        the layers, each matrix a stand-in of its shape that takes no memory
    """

    weights: int = 0
    zeros: int = 0
    empty: list[str] = field(default_factory=list)
    scales: int = 1
    outlines: list[Layer] = field(default_factory=list)

    def see(self, n: int, layer: Layer) -> None:
        """Take layer `n`."""
        linears = {}
        for name, linear in layer.linears.items():
            trits = linear.trits
            zeros = trits.size - int(np.count_nonzero(trits))
            self.weights += trits.size
            self.zeros += zeros
            if zeros == trits.size:
                self.empty.append(f"{name} of layer {n}")
            across = linear.column_scale
            self.scales = max(
                self.scales, len(linear.row_scales), 0 if across is None else len(across)
            )
            stand_in = np.broadcast_to(np.int8(0), trits.shape)
            linears[name] = TernaryLinear(stand_in, linear.scale, across)
        self.outlines.append(Layer(linears, layer.gains))

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.empty:
            return ()
        more = f" and {len(self.empty) - _NAMED} more" if len(self.empty) > _NAMED else ""
        return (f"every weight is 0 in {', '.join(self.empty[:_NAMED])}{more}",)


def survey(model: Model, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Walk through all layers. `progress` is called with layers done and layers."""
    found = Survey()
    for n in range(model.spec.layers):
        found.see(n, model.layer(n))
        if progress:
            progress(n + 1, model.spec.layers)
    return found


def watched(model: Model, tell: Callable[[str], None]) -> Model:
    """The model, telling of matrices whose weights are all 0 when a layer is first read."""
    told: set[int] = set()

    def layer(n: int) -> Layer:
        found = model.layer(n)
        if n not in told:
            told.add(n)
            empty = [name for name, linear in found.linears.items() if not linear.trits.any()]
            if empty:
                tell(f"every weight is 0 in {', '.join(empty)} of layer {n}")
        return found

    return replace(model, layer=layer)
