"""Configurations: what is accepted, what is refused and how, what is derived."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from terntable.hw.config import (
    AcceleratorConfig,
    load_config,
    named_configs,
    weight_memory_plan,
)
from terntable.hw.errors import UserError


def changed(**values: object) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(load_config("tiny").model_dump() | values)


def test_named_configurations_load_and_are_ordered() -> None:
    names = named_configs()
    assert {"test", "tiny"} <= set(names)
    sizes = [load_config(n).macs_per_cycle for n in names]
    assert sizes == sorted(sizes)
    assert load_config("tiny").macs_per_cycle >= 384
    assert load_config("tiny").tokens >= 2


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_config("tiny").tables = 3  # type: ignore[misc]


def test_every_field_changes_the_hash() -> None:
    base = load_config("tiny")
    other = {
        "name": "other", "part": "xck26", "array": "select_add", "group": 2, "tables": 12,
        "table_buffers": 2, "rows": 8, "tokens": 4, "attention_pipes": 2,
        "tile_rows": 256, "weight_memory": "bram", "weight_depth": 2048, "lanes": 2,
        "attention_dims": 16, "attention_rows": 2, "ports": 4, "bus_bits": 64, "burst_beats": 32,
        "clock_hz": 100_000_000, "chunk": 8, "max_hidden": 256, "max_row": 1024,
        "max_head_dim": 64, "max_heads": 8,
        "max_context": 1024,
    }  # fmt: skip
    assert other.keys() == base.model_dump().keys()
    hashes = {base.hash} | {changed(**{key: value}).hash for key, value in other.items()}
    assert len(hashes) == len(other) + 1
    assert changed().hash == base.hash


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lanes": 3}, "lanes is 3"),
        ({"attention_dims": 12}, "attention_dims is 12"),
        ({"rows": 6}, "rows is 6"),
        ({"tables": 15, "lanes": 4}, "group * tables is 45"),
        ({"tile_rows": 510}, "tile_rows is 510"),
        ({"attention_dims": 2}, "attention_dims is 2"),
        ({"attention_pipes": 4}, "attention_pipes is 4"),
        ({"max_hidden": 100}, "max_hidden is 100"),
        ({"max_context": 100}, "max_context is 100"),
        ({"weight_depth": 16}, "weight_depth is 16"),
        ({"chunk": 1}, "chunk is 1"),
        ({"bus_bits": 256, "burst_beats": 256}, "burst_beats is 256"),
        ({"ports": 3}, "ports"),
        ({"group": 5}, "group"),
        ({"array": "select_add", "table_buffers": 2}, "table_buffers is 2"),
        ({"nosuch": 1}, "nosuch"),
        ({"name": "Not Good"}, "name"),
    ],
)
def test_a_bad_value_is_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        changed(**values)
    assert words in str(error.value)


def test_files_and_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(load_config("tiny").model_dump()))
    assert load_config(str(file)) == load_config("tiny")
    for name in ("nosuch", "", "nosuch.yaml", str(tmp_path / "nosuch.yml")):
        with pytest.raises(UserError):
            load_config(name)


def test_derived_sizes() -> None:
    c = load_config("tiny")
    assert (c.tile_inputs, c.index_bits, c.word_trits, c.word_bits) == (48, 5, 192, 320)
    assert [changed(group=g, tables=16).index_bits for g in (2, 3, 4)] == [4, 5, 7]
    assert c.k_tiles(256) == 6


@pytest.mark.parametrize(
    ("bus_bits", "head_dim", "bits", "scales", "size"),
    [
        (128, 96, 16, 384, 400),
        (128, 96, 8, 192, 208),
        (128, 96, 4, 96, 112),
        (128, 64, 16, 256, 272),
        (128, 40, 4, 40, 48),  # codes and scales share a bus word
        (32, 6, 4, 8, 16),  # scales begin at a bus word
        (256, 6, 4, 8, 32),  # or at a multiple of their size
    ],
)
def test_kv_records(bus_bits: int, head_dim: int, bits: int, scales: int, size: int) -> None:
    c = changed(bus_bits=bus_bits)
    assert c.scales_offset(head_dim, bits) == scales
    assert c.record_bytes(head_dim, bits) == size


def test_weight_ring_plan() -> None:
    plan = weight_memory_plan(load_config("tiny"))
    assert (plan.primitive, plan.wide, plan.deep, plan.primitives) == ("URAM288", 5, 1, 5)
    assert 0.88 < plan.utilisation < 0.9
    # The worked point of 32 tables by 8 rows: 1,280 bits, 18 URAM wide.
    big = changed(tables=32, rows=8, lanes=8, weight_depth=8192)
    assert weight_memory_plan(big).primitives == 36
    # Never more than whole primitives for each pair of rows, as TeLLMe v2 places them.
    for tables in (8, 16, 28, 32):
        for rows in (4, 8, 16):
            c = changed(tables=tables, rows=rows)
            theirs = rows * -(-c.index_bits * tables // 72)
            assert weight_memory_plan(c).wide <= theirs
