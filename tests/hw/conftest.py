"""Block tests run with a monitor on every stream that the block and its parts give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from terntable.sim.contract import watched

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def every_stream_is_watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """For the tests in the blocks' folders; those in this one look at whole designs as they are."""
    if request.path.parent == HERE:
        yield
        return
    with watched():
        yield
