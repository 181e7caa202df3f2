"""Blocks of configuration ulx3s after mapping for ECP5: the cells do what the Verilog says."""

from __future__ import annotations

import pytest
from amaranth.lib.wiring import Component

from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.elementwise.pair import LanePair
from terntable.hw.flat import to_verilog
from terntable.hw.linear.lookup import LookupArray

from .mapped import cell_models, map_ecp5, used_cells
from .primitives.forms import check_texts

CONFIG = load_config("ulx3s")
SMALL = AcceleratorConfig.model_validate(
    CONFIG.model_dump() | {"tables": 3, "tokens": 2, "rows": 2, "max_row": 256}
)
"""Fewer of everything that the array repeats."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "cells"),
    [
        (lambda: LookupArray(SMALL), {"TRELLIS_DPR16X4", "CCU2C", "TRELLIS_FF"}),
        (lambda: LanePair(CONFIG.acc_bits), {"MULT18X18D", "CCU2C", "PFUMX", "TRELLIS_FF"}),
    ],
    ids=["array", "elementwise"],
)
def test_cells_do_what_the_verilog_says(block, cells: set[str]) -> None:
    component: Component = block()
    verilog = to_verilog(component, "twin")
    mapped = map_ecp5(to_verilog(component, "twin", "ecp5"), "twin", "device")
    assert cells <= used_cells(mapped)
    check_texts(component, [verilog, mapped, cell_models(mapped)], cycles=2000, warm_up=60)
