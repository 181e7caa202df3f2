"""Planted bugs: a block of the gateware with one wrong line, which its properties must catch."""

from __future__ import annotations

import inspect
import sys
from typing import Any, NamedTuple


class Bug(NamedTuple):
    """`right`, which occurs once in the block's file, is replaced by `wrong`."""

    name: str
    right: str
    wrong: str


def planted(block: type, bug: Bug) -> Any:
    """The class `block` as its file defines it with the bug in it. Raises ValueError when the
    right line is not there exactly once: the bug has to be planted anew."""
    module = sys.modules[block.__module__]
    source = inspect.getsource(module)
    if source.count(bug.right) != 1:
        raise ValueError(
            f"{bug.right!r} occurs {source.count(bug.right)} times in {module.__name__}"
        )
    names = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(source.replace(bug.right, bug.wrong), f"<{bug.name}>", "exec"), names)
    return names[block.__name__]
