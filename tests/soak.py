"""More cases of the test matrix, on demand: those in the file TERNTABLE_SOAK (see `make soak`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .parameters import Case, read_lines

pytestmark = pytest.mark.soak
LINES = read_lines(Path(os.environ["TERNTABLE_SOAK"]))


@pytest.mark.parametrize("number", range(len(LINES)))
def test_models_on_drawn_configurations(number: int) -> None:
    Case.parse(LINES[number]).run()
