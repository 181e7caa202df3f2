"""Longer tests of the parameters, on demand: see `make soak`."""

from __future__ import annotations

import os

import pytest

from .pairwise import soak
from .parameters import Case

pytestmark = pytest.mark.soak
LINE = os.environ.get("TERNTABLE_SOAK_CASE")
SEED = int(os.environ.get("TERNTABLE_SOAK_SEED", "1"))
COUNT = int(os.environ.get("TERNTABLE_SOAK_CASES", "100"))
CASES = [Case.parse(LINE)] if LINE else soak(COUNT, SEED)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_models_on_drawn_configurations(number: int) -> None:
    CASES[number].run()
