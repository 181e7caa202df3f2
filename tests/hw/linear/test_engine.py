"""The linear engine against NumPy, in Amaranth's simulator and as Verilog."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from amaranth.sim import Simulator

from terntable.hw.config import AcceleratorConfig
from terntable.hw.linear.engine import LinearEngine
from terntable.hw.modules import ModuleLibrary
from terntable.sim.harness import block_verilog, run_block

from ..monitor import sink, source, watch
from .linear_cases import Case, Problem, beat_of, config_with


def simulate(
    c: AcceleratorConfig, cases: list[Case], weight_idle: float = 0.0, stall: float = 0.0
) -> list[int]:
    """Runs commands one after the other; busy cycles beyond those of the array, of each."""
    problems = [Problem(c, case) for case in cases]
    dut = LinearEngine(c)
    rng = random.Random(7)
    expected = [beat for problem in problems for beat in problem.beats]
    got: list[int] = []
    current = [problems[0]]
    extra = []

    async def commands(ctx):
        for case, problem in zip(cases, problems, strict=True):
            current[0] = problem
            ctx.set(dut.cmd.payload.as_value(), problem.payload(case))
            ctx.set(dut.cmd.valid, 1)
            await ctx.tick().until(dut.cmd.ready)
            ctx.set(dut.cmd.valid, 0)
            cycles = 0
            while ctx.get(dut.busy):
                await ctx.tick()
                cycles += 1
                assert cycles < 100_000
            extra.append(cycles - problem.array_cycles)
        # Nothing more may come.
        await ctx.tick().repeat(50)

    async def activations(ctx):
        earlier = 0
        async for _, _, en, row, word in ctx.tick().sample(
            dut.a8_read.en, dut.a8_read.row, dut.a8_read.word
        ):
            ctx.set(dut.a8_read.data, earlier)
            earlier = current[0].activations(c, row, word) if en else 0

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    words = [word for problem in problems for word in problem.weights]
    sim.add_testbench(source(dut.weights, words, rng, weight_idle), background=True)
    # A reader that stalls much is ready only after it has seen valid.
    beats = sink(dut.o, got, len(expected) + 1, rng, stall, shy=stall > 0.5)
    sim.add_testbench(beats, background=True)
    watch(sim, dut)
    sim.add_process(activations)
    sim.add_testbench(commands)
    sim.run()
    assert [beat_of(c, payload) for payload in got] == expected
    return extra


CASES = [
    Case(tokens=1, n=16, k=20, tile_words=8),
    Case(tokens=4, n=40, k=33, tile_words=6),  # several tiles, the last one shorter
    Case(tokens=3, n=18, k=50, tile_words=5),  # last group of one token
    Case(tokens=1, n=35, k=20, tile_words=8, head=True),
    Case(tokens=4, n=4, k=6, tile_words=1),  # a K tile of one word
    Case(tokens=2, n=18, k=24, tile_words=4),  # a last tile of one word
    Case(tokens=3, n=62, k=64, tile_words=32),  # the longest tile
    Case(tokens=3, n=22, k=20, tile_words=4, first_row=26),  # a later part of a row
    *(Case(tokens=3, n=12, k=64, tile_words=3, extreme=code) for code in (127, -127, 0)),
    Case(tokens=1, n=15, k=64, tile_words=8, head=True, extreme=-128),
]


@pytest.mark.parametrize(
    "array", [{"array": "lookup"}, {"array": "select_add"}, {"table_buffers": 2}], ids=str
)
@pytest.mark.parametrize("stall", [0.0, 0.7])
@pytest.mark.parametrize("weight_idle", [0.0, 0.6])
def test_commands(weight_idle: float, stall: float, array: dict) -> None:
    simulate(config_with(**array), CASES, weight_idle, stall)


@pytest.mark.parametrize(
    "changes",
    [
        {"group": 2, "tables": 3, "rows": 4},
        {"group": 4, "tables": 3, "rows": 6, "tokens": 3, "tile_rows": 48},
        {"tokens": 1},
        {"tables": 1, "group": 2, "tokens": 5},
        {"lanes": 4, "rows": 8, "tables": 4},
        {"part": "xck26", "tokens": 4, "tables": 6},  # two chains
        {"part": "xck26", "tokens": 8, "chunk": 9, "tables": 14},
        {"part": "xck26", "tokens": 4, "group": 2, "tables": 9, "rows": 6, "tile_rows": 48},
        {"part": "xck26", "tokens": 4, "group": 2, "tables": 1},
        {"array": "select_add"},
        {"array": "select_add", "group": 4, "tables": 3, "rows": 6, "tokens": 1, "tile_rows": 48},
        {"array": "select_add", "group": 2, "tables": 1, "tokens": 5},
        {"weight_memory": "lutram", "weight_depth": 130, "max_row": 64, "tables": 4},
        {"table_buffers": 2, "group": 2, "tables": 3, "rows": 4},
        {"table_buffers": 2, "group": 4, "tables": 3, "rows": 6, "tokens": 3, "tile_rows": 48},
        {"table_buffers": 2, "part": "xck26", "tokens": 8, "chunk": 9, "tables": 14},
        {"table_buffers": 2, "part": "xck26", "tokens": 4, "group": 2, "tables": 1},
    ],
)
def test_shapes(changes: dict) -> None:
    c = config_with(**changes)
    rng = random.Random(str(changes))
    cases = []
    for seed in range(3):
        k = rng.randrange(1, 40)
        most = min(c.tile_rows // c.rows, c.weight_depth // c.k_tiles(k))
        cases.append(
            Case(
                tokens=rng.randrange(1, c.chunk + 1),
                n=c.lanes * rng.randrange(1, 3 * c.rows),
                k=k,
                tile_words=rng.randrange(1, most + 1),
                seed=seed,
            )
        )
    cases.append(Case(tokens=1, n=5 * c.rows + 1, k=9, tile_words=3, head=True))
    simulate(c, cases, weight_idle=0.2, stall=0.2)


@pytest.mark.parametrize(("buffers", "words"), [(1, 8), (2, 32)])
def test_cycles_of_a_k_tile(buffers: int, words: int) -> None:
    """3**G cycles to build, tile_words to sweep, nothing between; the drain hides behind the
    next tile. With two buffers of tables the build hides too, behind a sweep that is long enough,
    and 3 cycles are left."""
    c = config_with(table_buffers=buffers)
    cases = [Case(tokens=1, n=2 * words * n, k=60, tile_words=words) for n in (1, 2, 6)]
    extra = simulate(c, cases)
    assert max(extra) - min(extra) == 0
    assert max(extra) < (40 if buffers == 1 else 80)


@pytest.mark.parametrize("name", ["test", "tiny"])
def test_verilog(name: str) -> None:
    c = config_with(name)
    library = ModuleLibrary()
    text = block_verilog(LinearEngine(c, library), "engine") + library.verilog()
    E = c.lanes
    cases = [
        Case(tokens=1, n=16 * E, k=3 * c.tile_inputs - 5, tile_words=10),
        Case(tokens=3, n=11 * E, k=c.tile_inputs + 1, tile_words=4),
        Case(tokens=4, n=9 * E, k=c.tile_inputs, tile_words=3, first_row=7 * E),
        Case(tokens=1, n=5 * E * 3, k=40, tile_words=7, head=True),
    ]
    here = Path(__file__).parent
    for weight_idle, stall in [(0.0, 0.0), (0.3, 0.5)]:
        run_block(
            text,
            top="engine",
            module=here / "engine_cocotb.py",
            vlt=library.verilator_config(),
            params={
                "config": name,
                "cases": [dataclasses.asdict(case) for case in cases],
                "seed": 3,
                "weight_idle": weight_idle,
                "stall": stall,
                "overhead": 120,
            },
        )


def test_sums_of_the_longest_row() -> None:
    """65,536 codes of 127, weights 1 and -1: accumulators of 24 bits hold that."""
    changes = {
        "group": 4, "tables": 32, "tokens": 1, "chunk": 1, "max_row": 65536, "weight_depth": 1024,
    }  # fmt: skip
    c = config_with(**changes)
    library = ModuleLibrary()
    case = Case(tokens=1, n=c.rows, k=65536, tile_words=1, extreme=127)
    run_block(
        block_verilog(LinearEngine(c, library), "engine") + library.verilog(),
        top="engine",
        module=Path(__file__).parent / "engine_cocotb.py",
        vlt=library.verilator_config(),
        params={
            "config": "test",
            "changes": changes,
            "cases": [dataclasses.asdict(case)],
            "seed": 4,
            "weight_idle": 0.0,
            "stall": 0.2,
        },
    )
