"""Commands against the configuration's limits, at their edges."""

from __future__ import annotations

import math
import random

import pytest
from amaranth.sim import Simulator

from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.control.check import CommandCheck, checked_layout, reference
from terntable.hw.limits import limits, numbers, violation

from ..monitor import sink, source, watch

NUMBERS = (0.0, 1.5, -(2.0**128 - 2.0**104), 2.0**-126 * (1 + 2.0**-23))
NO_NUMBERS = (math.inf, -math.inf, math.nan, -0.0, 2.0**-126, -(2.0**-126), 2.0**-149)
WIDE = {"bus_bits": 256, "tables": 8, "rows": 8, "lanes": 8, "attention_dims": 8, "ports": 4}


def config_with(changes: dict) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(load_config("test").model_dump() | changes)


def good(config: AcceleratorConfig, op: isa.Op, rng: random.Random) -> dict[str, int]:
    """Fields of a small command that fits."""
    c = config
    dims = c.attention_dims
    kv = rng.choice(list(isa.KvFormat))
    record = c.record_bytes(dims, kv.bits)
    values = {f.name: 0 for f in isa.FIELDS[op]}
    mode = rng.choice(list(isa.Mode))
    chosen = {
        isa.Op.FETCH: {"beats": 9, "words": 9 * 5 * c.beat_bytes // c.word_trits},
        isa.Op.LOAD: {"dest": rng.choice(list(isa.Dest)), "ew": 1, "count": 1},
        isa.Op.NORM_QUANT: {"source": rng.choice(list(isa.Source)), "ew": 1},
        isa.Op.KV_QUANT: {
            "format": kv, "heads_per_kv": 1, "kv_heads": 1, "head_ew": dims // c.lanes,
            "record_bytes": record,
        },
        isa.Op.LINEAR: {
            "mode": mode, "k_tiles": 1, "tile_words": 5, "last_words": 5, "tiles": 1,
            "out_rows": 5 if mode is isa.Mode.HEAD else c.lanes, "head_ew": 1,
            "planes": 5 if mode is isa.Mode.HEAD else 0,
        },
        isa.Op.ATTENTION: {
            "format": kv, "heads_per_kv": 1, "kv_heads": 1, "head_dims": dims,
            "record_bytes": record,
        },
    }  # fmt: skip
    return values | chosen[op]


def around(config: AcceleratorConfig, op: isa.Op, rng: random.Random) -> dict[str, int]:
    """Fields of a command, some of them near where a limit turns."""
    values = good(config, op, rng)
    widths = {f.name: f.bits for f in isa.FIELDS[op]}
    for limit in rng.choices(limits(config)[op], k=rng.choice([0, 1, 1, 2])):
        names = [name for term in limit.terms for name in term.fields]
        if rng.random() < 0.3:  # a product may be too large though its factors are not
            values |= {name: rng.randrange(1, 34) for name in names}
        name = rng.choice(names)
        high = limit.high.value if limit.high is not None else 4 * values[name] + 8
        step = rng.choice([1, limit.multiple.value])
        value = rng.choice([limit.low, high, rng.randrange(high + 1)]) + rng.choice(
            [-step, 0, step]
        )
        values[name] = min(max(value, 0), (1 << widths[name]) - 1)
        if name in ("head_ew", "head_dims") and "record_bytes" in values and rng.random() < 0.7:
            values["record_bytes"] = config.record_bytes(
                values[name] * (config.lanes if name == "head_ew" else 1), 16 >> values["format"]
            ) % (1 << 16)
        if name in ("tile_words", "out_rows") and op is isa.Op.LINEAR and rng.random() < 0.7:
            values["tiles"] = 1 + rng.randrange(1 << 10)
            values["last_words"] = max(1, values["tile_words"])
    return values


@pytest.mark.parametrize("changes", [{}, WIDE], ids=["test", "wide"])
def test_the_verdict_is_that_of_the_table(changes: dict) -> None:
    config = config_with(changes)
    rng = random.Random(len(changes))
    commands = [isa.encode(isa.Op.END), isa.encode(isa.Op.CHUNK), bytes(64), b"\xff" * 64]
    for op in limits(config):
        drawn = [isa.encode(op, 0, **around(config, op, rng)) for _ in range(400)]
        fitting = [c for c in drawn if reference(config, c)][:40]
        broken = [c for c in drawn if not reference(config, c)][:40]
        assert len(fitting) > 30 and len(broken) > 30, op
        commands += fitting + broken
        for name in numbers(op):
            values = good(config, op, rng)
            of = [isa.encode(op, 0, **values | {name: x}) for x in (*NUMBERS, *NO_NUMBERS)]
            assert [reference(config, c) for c in of] == [True] * 4 + [False] * 7, name
            commands += of
    rng.shuffle(commands)
    dut = CommandCheck(config)
    got: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    watch(sim, dut)
    words = [int.from_bytes(c, "little") for c in commands]
    sim.add_testbench(source(dut.i, words, random.Random(1), 0.3))
    sim.add_testbench(sink(dut.o, got, len(words), random.Random(2), 0.3, shy=True))
    sim.run()
    views = [checked_layout().from_bits(bits) for bits in got]
    assert [v.command for v in views] == words
    assert [bool(v.fits) for v in views] == [reference(config, c) for c in commands]


def test_a_field_that_is_no_number_is_named() -> None:
    config = load_config("test")
    values = good(config, isa.Op.NORM_QUANT, random.Random(1)) | {"eps": math.nan}
    text = violation(config, isa.decode(isa.encode(isa.Op.NORM_QUANT, 0, **values)))
    assert text == "NORM_QUANT: eps is nan: only numbers of the numeric contract can be"


def test_every_limit_can_be_broken_and_says_so() -> None:
    """Each limit refuses something that all others allow, and names field and value."""
    config = load_config("test")
    rng = random.Random(5)
    for op, found in limits(config).items():
        alone = set()
        for _ in range(4000):
            command = isa.decode(isa.encode(op, 0, **around(config, op, rng)))
            broken = [n for n, x in enumerate(found) if x.applies(command) and not x.holds(command)]
            text = violation(config, command)
            assert bool(broken) == (text is not None)
            if broken:
                value = found[broken[0]].value(command)
                assert text is not None
                assert text.startswith(f"{op.name}: {found[broken[0]].expression} is {value}: ")
            if len(broken) == 1:
                alone.add(broken[0])
        for n, limit in enumerate(found):
            assert n in alone, f"{op.name}: {limit.expression} never decides"
