"""The order in which a table's entries are made by an accumulator that holds two activations.

The entries are the points of a grid, a digit -1, 0 or 1 for each activation. A step along the digit
of an activation that the accumulator holds adds or subtracts it. The third activation comes in
first and is replaced when it is the total: the layer of the grid where its digit is 1 begins there;
the negative of a total is the point on the other side, in the layer of -1; and the layer of 0
begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = (2, 3)
"""Activations that a table can be of."""

KEEP = {"keep": 1}
TAKE = {"a": 1}
"""The step that makes the first activation the total."""


@dataclass(frozen=True)
class Step:
    """entry: the number of the entry that the total is after the step. step: fields of
    simd_accumulator.step_layout that are 1."""

    entry: int
    step: dict[str, int]


Point = tuple[int, int]

_SNAKE: tuple[Point, ...] = tuple((y, x if y else -x) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""From a corner of a layer to the opposite one."""
_SPIRAL: tuple[Point, ...] = (
    (0, 0), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1),
)  # fmt: skip
"""From the middle of a layer to a corner."""


def walk(group: int) -> list[Step]:
    """All entries: operand a is activation 0, operand c activation 1. With three activations the
    total is activation 2 before the first step, which keeps it."""
    begin = {"a": 1, "c": 1, "minus": 1}
    if group == 2:
        return _layer(_SNAKE, None, begin)
    # The snake of layer -1 begins where the spiral's end is on the other side: mirrored.
    mirrored = tuple((y, -x) for y, x in reversed(_SNAKE))
    return [
        *_layer(_SPIRAL, 1, KEEP),
        *_layer(mirrored, -1, {"turn": 1, "minus": 1}),
        *_layer(_SNAKE, 0, begin),
    ]


def _layer(path: tuple[Point, ...], third: int | None, first: dict[str, int]) -> list[Step]:
    steps = []
    before = None
    for y, x in path:
        step = first
        if before is not None:
            moved = x - before[1] or y - before[0]
            step = KEEP | {"a" if x != before[1] else "c": 1} | ({"minus": 1} if moved < 0 else {})
        before = (y, x)
        entry = (x + 1) + 3 * (y + 1) + (0 if third is None else 9 * (third + 1))
        steps.append(Step(entry, step))
    return steps
