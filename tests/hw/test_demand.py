"""Configurations that can't fit their part are refused before synthesis."""

from __future__ import annotations

import re

import pytest

from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.demand import check_fits, demands, ebr_count, ramb36_count, uram_count
from terntable.hw.errors import UserError
from terntable.hw.parts import PARTS

PART = PARTS["xck26"]


def kv260(**values: object) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(load_config("kv260").model_dump() | values)


def test_named_configurations_fit() -> None:
    for name in ("test", "tiny", "kv260"):
        check_fits(load_config(name), PART)
    check_fits(load_config("ulx3s"), PARTS["lfe5u-85f"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        # 18 URAM side by side, four deep.
        ({"weight_depth": 16384}, ("72 for the weight ring", "uram", "weight_depth")),
        # 16 URAM for a row of X and one of F of every token: 256 x (40 + 108) kbit.
        ({"chunk": 64}, ("uram", "binary32 rows", "lower chunk")),
        ({"weight_memory": "bram"}, ("bram36", "weight ring", "weight_depth")),
        ({"weight_memory": "lutram", "weight_depth": 4096}, ("lutram", "weight_depth")),
        ({"tile_rows": 8192, "tokens": 16}, ("bram36", "accumulators", "tile_rows")),
    ],
)
def test_the_resource_and_the_excess_are_named(
    values: dict[str, object], words: tuple[str, ...]
) -> None:
    config = kv260(**values)
    with pytest.raises(UserError) as caught:
        check_fits(config, PART)
    said = str(caught.value)
    assert "\n" not in said
    for word in ("kv260", "xck26", *words):
        assert word in said
    resource = re.search(r"at least (\d+) (\w+).* (\d+) over the part's (\d+)", said)
    assert resource is not None
    needed, name, over, limit = resource.groups()
    assert int(limit) == getattr(PART, name)
    assert int(needed) - int(over) == int(limit)
    assert int(needed) == sum(d.count for d in demands(config) if d.resource == name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_depth": 32768}, ("weight ring", "ebr", "lower weight_depth")),
        ({"chunk": 128}, ("binary32 rows", "ebr", "lower chunk")),
        ({"weight_memory": "lutram", "weight_depth": 4096}, ("lutram", "lower weight_depth")),
    ],
)
def test_a_smaller_part(values: dict[str, object], words: tuple[str, ...]) -> None:
    config = AcceleratorConfig.model_validate(load_config("ulx3s").model_dump() | values)
    with pytest.raises(UserError) as caught:
        check_fits(config, PARTS["lfe5u-85f"])
    for word in ("ulx3s can't fit lfe5u-85f", *words):
        assert word in str(caught.value)


def test_uram_on_a_part_without() -> None:
    values = load_config("ulx3s").model_dump() | {"weight_memory": "uram"}
    with pytest.raises(ValueError, match="lfe5u-85f has none, choose bram or lutram"):
        AcceleratorConfig.model_validate(values)


def test_memories_take_whole_primitives() -> None:
    assert uram_count(1280, 8192) == 36
    assert uram_count(72, 4096) == 1 and uram_count(73, 4096) == 2 and uram_count(1, 4097) == 2
    assert ramb36_count(1536, 256) == 22
    assert ramb36_count(36, 1024) == 1 and ramb36_count(9, 4096) == 1
    assert ramb36_count(18, 4096) == 2
    assert ebr_count(36, 512) == 1 and ebr_count(96, 128) == 3 and ebr_count(4, 8192) == 2
