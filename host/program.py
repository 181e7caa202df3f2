"""Builds command lists: keeps the order it is given and works out what each command waits for.

A command waits for the units that still hold something it needs or would overwrite. A unit takes
one command at a time, so handing it a new one means that its older ones are finished; commands of
one unit never need to wait for one another.

Some commands can follow an unfinished one of another unit, piece by piece, instead of waiting for
it. Those that need to be told have a field `follow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    follows: dict[Op, frozenset[Resource]]


class ProgramBuilder:
    """Commands in order of execution. A CHUNK restarts the program at its first command."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(
        self,
        op: Op,
        reads: Iterable[Resource] = (),
        writes: Iterable[Resource] = (),
        follows: Mapping[Op, Iterable[Resource]] | None = None,
        **fields: int | float,
    ) -> None:
        """Append a command. `follows`: opcodes behind which it may begin while they are unfinished,
        and the resources that are then handed over piece by piece; its field `follow`, if it has
        one, is set where it does."""
        handed = {other: frozenset(what) for other, what in (follows or {}).items()}
        self._steps.append(_Step(op, fields, frozenset(reads), frozenset(writes), handed))

    def encode(self) -> bytes:
        """The program's bytes."""
        text = b""
        for step, mask, follow in zip(self._steps, *self._order(), strict=True):
            fields = step.fields
            if any(field.name == "follow" for field in isa.FIELDS[step.op]):
                fields = fields | {"follow": int(follow)}
            text += isa.encode(step.op, mask, **fields)
        return text

    def _order(self) -> tuple[list[int], list[bool]]:
        """Wait masks, and which commands follow another, that hold on every path: straight
        through, and after any restart. A command that follows on one path and waits on the other
        does both: behind a unit that is idle there is nothing to follow."""
        masks = [0] * len(self._steps)
        following = [False] * len(self._steps)
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
                for u, other in list(busy.items()):
                    conflict = _conflict(step, other)
                    if u == unit or not conflict:
                        continue
                    if conflict <= step.follows.get(other.op, frozenset()):
                        following[i] = True
                    else:
                        masks[i] |= isa.wait_mask(u)
                        del busy[u]
                busy[unit] = step
        return masks, following


def _conflict(step: _Step, earlier: _Step) -> frozenset[Resource]:
    """What a step needs that an earlier one makes, or overwrites that it uses."""
    return step.reads & earlier.writes | step.writes & (earlier.reads | earlier.writes)
