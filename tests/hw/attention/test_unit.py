"""The attention unit's Verilog against its reference, bit for bit."""

import itertools
import random
from dataclasses import replace

import cocotb
import numpy as np
import pytest
from attention_cases import Case, build
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from terntable.hw.attention.unit import AttentionUnit
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.isa import KvFormat
from terntable.hw.modules import ModuleLibrary
from terntable.sim.harness import block_verilog, params, run_block

# The forms for a part are made, and not emitted.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


class Bench:
    """Drives all ports of the unit; one clock loop, because Python is woken once a cycle."""

    def __init__(self, dut, config: AcceleratorConfig, max_rows: int, stall: float, seed: int):
        self.dut = dut
        self.config = config
        self.max_rows = max_rows
        self.stall = stall
        self.rng = random.Random(seed)
        self.dram = b""
        self.beats_read = 0
        self.clears = 0
        self.out: dict[tuple[int, int], int] = {}
        self.queues: list[list[int]] = [[] for _ in range(config.ports)]
        self.ports = [
            {
                name: getattr(dut, f"kv{p}__{name}")
                for name in (
                    "req__valid",
                    "req__ready",
                    "req__payload",
                    "data__valid",
                    "data__ready",
                    "data__payload",
                )
            }
            for p in range(config.ports)
        ]

    async def reset(self) -> None:
        dut = self.dut
        for handle in (dut.q_write__en, dut.q_scale__en, dut.cmd__valid):
            handle.value = 0
        dut.heads_ready.value = (1 << len(dut.heads_ready)) - 1
        for port in self.ports:
            port["req__ready"].value = 0
            port["data__valid"].value = 0
        dut.rst.value = 1
        Clock(dut.clk, 4, "ns", impl="gpi").start()
        for _ in range(3):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.clk)

    async def cycle(self) -> bool:
        """One clock: memory ports answer, output writes are noted. Whether the unit is busy."""
        stall, rng, bus = self.stall, self.rng, self.config.bus_bytes
        for port, queue in zip(self.ports, self.queues, strict=True):
            valid = port.get("held", False) or (bool(queue) and rng.random() >= stall)
            port["held"] = valid
            if valid:
                at = queue[0]
                port["data__payload"].value = int.from_bytes(self.dram[at : at + bus], "little")
            port["data__valid"].value = valid
            # With stalls the memory is ready only for a request that it has seen.
            port["req__ready"].value = rng.random() >= stall and (
                not stall or port.get("seen", False)
            )
        await ReadOnly()
        dut = self.dut
        for port, queue in zip(self.ports, self.queues, strict=True):
            if port["held"] and port["data__ready"].value:
                queue.pop(0)
                self.beats_read += 1
                port["held"] = False
            port["seen"] = bool(port["req__valid"].value and not port["req__ready"].value)
            if port["req__valid"].value and port["req__ready"].value:
                descriptor = int(port["req__payload"].value)
                address, beats = descriptor & 0xFFFFFFFF, descriptor >> 32
                assert beats > 0 and address % bus == 0
                queue.extend(range(address, address + beats * bus, bus))
        if dut.o_write__en.value:
            at = int(dut.o_write__row.value), int(dut.o_write__word.value)
            assert at not in self.out, f"written twice: {at}"
            assert int(dut.o_write__mask.value) == (1 << self.config.lanes) - 1
            self.out[at] = int(dut.o_write__data.value)
        if dut.clear_o.value:
            assert not self.out
            self.clears += 1
        busy = bool(dut.busy.value)
        await RisingEdge(dut.clk)
        return busy

    async def execute(self, case: Case) -> int:
        """Runs a case and checks its outputs; returns its cycles."""
        dut, config = self.dut, self.config
        lanes = config.lanes
        stimulus = build(config, case)
        self.dram = stimulus.dram.tobytes()
        self.out.clear()
        self.beats_read = self.clears = 0
        heads = stimulus.q_codes.shape[1]
        for token in range(case.tokens):
            for head in range(heads):
                codes = stimulus.q_codes[token, head].astype("<i2")
                dut.q_write__token.value = dut.q_scale__token.value = token
                dut.q_write__head.value = dut.q_scale__head.value = head
                for word in range(case.head_dims // lanes):
                    part = codes[word * lanes : (word + 1) * lanes].tobytes()
                    dut.q_write__en.value = 1
                    dut.q_write__word.value = word
                    dut.q_write__data.value = int.from_bytes(part, "little")
                    await RisingEdge(dut.clk)
                dut.q_write__en.value = 0
                dut.q_scale__en.value = 1
                dut.q_scale__data.value = int(stimulus.q_scales.view(np.uint32)[token, head])
                await RisingEdge(dut.clk)
                dut.q_scale__en.value = 0

        words = int.from_bytes(stimulus.command, "little")
        payload = words | case.position << 528 | case.tokens << 560
        dut.cmd__payload.value = payload
        dut.cmd__valid.value = 1
        await self.cycle()
        dut.cmd__valid.value = 0
        cycles = 0
        while await self.cycle():
            cycles += 1
            assert cycles < 200_000, f"{case}: never done"

        row = heads * case.head_dims // lanes
        assert sorted(self.out) == [(t, w) for t in range(case.tokens) for w in range(row)], case
        got = b"".join(self.out[at].to_bytes(4 * lanes, "little") for at in sorted(self.out))
        got_bits = np.frombuffer(got, "<u4").reshape(case.tokens, -1)
        wrong = np.argwhere(got_bits != stimulus.expected.view(np.uint32))
        assert len(wrong) == 0, f"{case}: {len(wrong)} wrong, first at {wrong[0]}"
        assert self.clears == 1
        # Each pass of queries reads the positions that its last token sees, once.
        step = self.max_rows // case.heads_per_kv
        seen = sum(
            case.position + min(at + step, case.tokens) for at in range(0, case.tokens, step)
        )
        record_beats = config.record_bytes(case.head_dims, case.format.bits) // config.bus_bytes
        assert self.beats_read == seen * case.kv_heads * record_beats
        return cycles


def cases_of(name: str) -> list[Case]:
    small = dict(head_dims=8)
    gqa = dict(heads_per_kv=2, kv_heads=2, head_dims=16)
    kinds = (
        "equal",
        "steep",
        "flat",
        "clamped",
        "huge",
        "zero_q",
        "zero_k",
        "zero_v",
        "largest",
        "least",
        "wide_v",
        "foreign",
        "foreign_k",
    )
    lists = {
        "positions": [
            Case(tokens=t, position=p, seed=31 * p + t, **small)
            for p, t in (
                (0, 1),
                (0, 2),
                (1, 3),
                (28, 4),
                (30, 3),
                (31, 1),
                (31, 2),
                (32, 1),
                (60, 4),
                (61, 4),
                (63, 1),
                (64, 4),
                (95, 2),
                (124, 4),
                (127, 1),
            )
        ],
        "groups": [
            Case(heads_per_kv=h, kv_heads=k, head_dims=d, tokens=t, position=p, seed=h + k + d + t)
            for h, k, d, t, p in (
                (1, 8, 8, 4, 30),
                (8, 1, 8, 4, 30),
                (2, 4, 16, 3, 62),
                (2, 2, 32, 4, 29),
                (3, 2, 12, 4, 31),
                (5, 1, 4, 3, 33),
                (1, 1, 4, 1, 5),
                (4, 1, 4, 4, 70),
                (1, 3, 32, 1, 127),
                (6, 1, 20, 2, 63),
            )
        ],
        "kinds": [
            Case(kind=kind, tokens=t, position=p, seed=p, **gqa)
            for kind in kinds
            for t, p in ((4, 61), (1, 40))
        ],
        "wide": [
            Case(
                heads_per_kv=h,
                kv_heads=k,
                head_dims=d,
                tokens=t,
                position=p,
                seed=h + k + d + t,
                kind=kind,
            )
            for h, k, d, t, p, kind in (
                (1, 1, 8, 1, 0, "random"),
                (1, 2, 128, 16, 0, "random"),
                (4, 2, 64, 16, 25, "random"),
                (4, 1, 128, 1, 100, "steep"),
                (16, 1, 16, 5, 31, "flat"),
                (2, 3, 24, 16, 49, "wide_v"),
                (3, 1, 32, 16, 16, "largest"),
                (1, 4, 64, 3, 62, "huge"),
                (1, 1, 8, 1, 63, "equal"),
            )
        ],
    }
    lists["kv260"] = [
        Case(heads_per_kv=h, kv_heads=k, head_dims=d, tokens=t, position=p, seed=h + d + t + p)
        for h, k, d, t, p in (
            (1, 2, 96, 1, 255),
            (1, 2, 96, 1, 511),
            (4, 2, 128, 1, 255),
            (1, 2, 96, 16, 0),
            (1, 4, 96, 16, 16),
            (1, 2, 96, 16, 112),
            (4, 1, 128, 16, 48),
            (20, 1, 64, 3, 30),
        )
    ]
    lists["context"] = [
        Case(kind=kind, tokens=2, position=4094, head_dims=4)
        for kind in ("equal", "zero_q", "huge", "largest", "least")
    ]
    lists["variants"] = [
        Case(heads_per_kv=h, kv_heads=k, head_dims=d, tokens=t, position=p, seed=h + k + d + t)
        for h, k, d, t, p in (
            (1, 2, 16, 4, 30),
            (2, 2, 16, 3, 61),
            (1, 1, 32, 1, 127),
            (5, 1, 16, 4, 33),
            (3, 1, 32, 2, 8),
            (2, 1, 32, 1, 64),
        )
    ]
    # The formats of K and V in turn, over the cases and from one run of a case to the next.
    formats = itertools.cycle(KvFormat)
    runs = len(KvFormat) if name in ("groups", "variants") else 1
    return [replace(case, format=next(formats)) for _ in range(runs) for case in lists[name]]


@cocotb.test()
async def check_cases(dut):
    given = params()
    config = AcceleratorConfig.model_validate(given["config"])
    bench = Bench(dut, config, given["max_rows"], given["stall"], seed=7)
    await bench.reset()
    for case in cases_of(given["cases"]):
        cycles = await bench.execute(case)
        cocotb.log.info("%s: %d cycles, %d beats", case, cycles, bench.beats_read)


def run(config: AcceleratorConfig, cases: str, stall: float = 0.3, max_rows: int | None = None):
    library = ModuleLibrary()
    unit = AttentionUnit(config, library, max_rows)
    run_block(
        f"{block_verilog(unit, 'attention')}\n{library.verilog()}",
        vlt=library.verilator_config(),
        top="attention",
        module=__file__,
        test="check_cases",
        params={
            "config": config.model_dump(),
            "cases": cases,
            "stall": stall,
            "max_rows": unit.shape.max_rows,
        },
    )


@pytest.mark.parametrize("cases", ["positions", "groups", "kinds"])
def test_small(cases):
    run(load_config("test"), cases)


def test_no_stalls():
    run(load_config("test"), "groups", stall=0)


def test_kv260():
    """The whole of a chunk, and decode steps, at full width."""
    run(load_config("kv260"), "kv260", stall=0)


def test_passes():
    """More query rows than fit on chip: K and V are read once a pass."""
    run(load_config("test"), "groups", max_rows=8)


def test_4096_positions():
    """Equal scores, one huge score, the largest sums, to the end of a long context."""
    fields = dict(max_context=4096, attention_dims=2, attention_rows=2, chunk=2, max_head_dim=4)
    config = AcceleratorConfig(**load_config("test").model_dump() | fields)
    run(config, "context", stall=0)


def test_tiny():
    run(load_config("tiny"), "wide")


@pytest.mark.parametrize(
    "fields",
    [
        dict(attention_dims=2, attention_rows=1, ports=1, bus_bits=256),
        dict(attention_dims=16, attention_rows=3, ports=4, bus_bits=64),
    ],
    ids=["narrow", "odd"],
)
def test_variants(fields):
    """Bus words that hold several code words or parts of one, other port and row counts."""
    run(AcceleratorConfig(**load_config("test").model_dump() | fields), "variants")
