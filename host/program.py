"""Builds command lists: keeps the order it is given and works out what each command waits for.

A command waits for the units that still hold something it needs or would overwrite. A unit takes
one command at a time, so handing it a new one means that its older ones are finished; commands of
one unit never need to wait for one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from terntable.hw import isa
from terntable.hw.isa import Op, Unit

Resource = Any
"""A thing commands share, named by any hashable value ('X', ('kv', 3), ...)."""


@dataclass(frozen=True)
class _Step:
    op: Op
    fields: dict[str, int | float]
    reads: frozenset[Resource]
    writes: frozenset[Resource]


class ProgramBuilder:
    """Commands in order of execution. A CHUNK restarts the program at its first command."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(
        self,
        op: Op,
        reads: Iterable[Resource] = (),
        writes: Iterable[Resource] = (),
        **fields: int | float,
    ) -> None:
        self._steps.append(_Step(op, fields, frozenset(reads), frozenset(writes)))

    def encode(self) -> bytes:
        """The program's bytes."""
        waits = self._waits()
        return b"".join(
            isa.encode(s.op, wait, **s.fields) for s, wait in zip(self._steps, waits, strict=True)
        )

    def _waits(self) -> list[int]:
        """Wait masks that hold on every path: straight through, and after any restart."""
        masks = [0] * len(self._steps)
        chunks = [i for i, s in enumerate(self._steps) if s.op is Op.CHUNK]
        loop = range(chunks[-1] + 1) if chunks else range(0)
        straight, again = range(len(masks)), [*loop, *range(len(masks))]
        for path in (straight, again):
            busy: dict[Unit, _Step] = {}
            for i in path:
                step = self._steps[i]
                if step.op is Op.END:
                    masks[i] |= isa.wait_mask(*Unit)
                unit = isa.UNIT_OF.get(step.op)
                if unit is None:
                    continue
                needed = [u for u, other in busy.items() if u != unit and _conflict(step, other)]
                masks[i] |= isa.wait_mask(*needed)
                for u in needed:
                    del busy[u]
                busy[unit] = step
        return masks


def _conflict(step: _Step, earlier: _Step) -> bool:
    return bool(step.reads & earlier.writes or step.writes & (earlier.reads | earlier.writes))
