"""The vector unit between row memories, as generated Verilog: both commands against NumPy."""

from __future__ import annotations

import random

import cocotb
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from cocotb.triggers import FallingEdge, ReadOnly, Timer

from terntable.hw import isa, numeric
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.elementwise import cycles, kv_quant, norm_quant, record_descriptors
from terntable.hw.elementwise.cycles import kv_quant_cycles, norm_quant_cycles
from terntable.hw.elementwise.head_scales import HeadScales
from terntable.hw.elementwise.rows import RowMemory
from terntable.hw.elementwise.scalar import Scalar
from terntable.hw.elementwise.vector import VectorUnit
from terntable.hw.interfaces import (
    FactorSignature,
    QueryScaleSignature,
    QueryWriteSignature,
    RowReadSignature,
    RowWriteSignature,
    WriteChannelSignature,
    command_layout,
    row_words,
)
from terntable.hw.isa import KvFormat, Op, Source
from terntable.sim.harness import params, run_block

F32 = np.float32
SOURCES = {"x": Source.RESIDUAL, "f": Source.ROW}


def variant(spec: dict) -> AcceleratorConfig:
    """A named configuration with some fields changed."""
    fields = load_config(spec["config"]).model_dump() | spec.get("fields", {})
    return AcceleratorConfig.model_validate(fields)


class Bench(Component):
    """The vector unit with the row memories that it reads and writes."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = c = config
        self.words = row_words(c, c.longest_row)
        self.tiles = c.k_tiles(c.longest_row)
        ports: dict = {
            "cmd": In(stream.Signature(command_layout())),
            "busy": Out(1),
            "a8": In(RowReadSignature(c.chunk, self.tiles, 8 * c.tile_inputs)),
            "factor": Out(FactorSignature(c.chunk)),
            "q_write": Out(QueryWriteSignature(c)),
            "q_scale": Out(QueryScaleSignature(c)),
            "kv": Out(WriteChannelSignature(c.bus_bits)),
            "heads_done": Out(range(c.max_heads + 1)),
        }
        for name in (*SOURCES, "gain"):
            ports[f"{name}_write"] = In(
                RowWriteSignature(
                    1 if name == "gain" else c.chunk,
                    row_words(c, c.max_hidden) if name == "x" else self.words,
                    c.lanes,
                    32,
                )
            )
            ports[f"{name}_clear"] = In(1)
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        m.submodules.vector = vector = VectorUnit(c)
        for name in SOURCES:
            words = row_words(c, c.max_hidden) if name == "x" else self.words
            rows = RowMemory(c.chunk, words, c.lanes, 32, stats=True)
            m.submodules[name] = rows
            connect(m, getattr(vector, f"{name}_read"), rows.read0)
            connect(m, flipped(getattr(self, f"{name}_write")), rows.write0)
            m.d.comb += [
                rows.clear.eq(getattr(self, f"{name}_clear")),
                rows.max_row.eq(getattr(vector, f"{name}_max_row")),
                getattr(vector, f"{name}_max").eq(rows.max),
            ]
        m.submodules.gain = gain = RowMemory(1, self.words, c.lanes, 32)
        connect(m, vector.gain_read, gain.read0)
        connect(m, flipped(self.gain_write), gain.write0)
        m.submodules.a8 = a8 = RowMemory(c.chunk, self.tiles, 1, 8 * c.tile_inputs)
        connect(m, vector.a8_write, a8.write0)
        connect(m, flipped(self.a8), a8.read0)
        connect(m, flipped(self.cmd), vector.cmd)
        m.d.comb += [self.busy.eq(vector.busy), self.heads_done.eq(vector.heads_done)]
        for name in ("factor", "q_write", "q_scale", "kv"):
            connect(m, getattr(vector, name), flipped(getattr(self, name)))
        return m


def some_row(rng: np.random.Generator, n: int) -> np.ndarray:
    """A row of one of the kinds that are hard on some step."""
    x = rng.standard_normal(n)
    match rng.integers(9):
        case 0:  # wide dynamic range
            x *= 2.0 ** rng.integers(-60, 60, n)
        case 1:
            x *= 0
        case 2:  # one-hot
            x *= np.arange(n) == rng.integers(n)
        case 3:  # below the floor of absmax
            x *= 1e-8
        case 4:
            x *= 1e30
        case 5:  # close to the limits of the format
            x *= 10.0 ** rng.choice([-37.5, 38], n)
        case 6:  # sparse
            x *= rng.random(n) < 0.1
        case 7:  # ties
            x = rng.integers(-254, 255, n) / 2
            x[rng.integers(n)] = 127
    with np.errstate(over="ignore", under="ignore"):
        return numeric.sanitise(x.astype(F32))


SIZES = {
    "zero": 0,
    "tiny": 2.0**-126 * (1 + 2.0**-23),
    "below-floor": 9e-6,
    "one": 1,
    "int8": 127,
    "1e30": 1e30,
    "largest": numeric.LARGEST,
}
"""Sizes of the elements of rows, and of gains, that are extreme throughout."""


def extreme_row(kind: str, n: int) -> np.ndarray:
    """Elements of one size, signs alternating."""
    return numeric.sanitise(F32(SIZES[kind]) * np.where(np.arange(n) % 2, F32(-1), F32(1)))


class Driver:
    """Drives the bench a cycle at a time and keeps what comes out."""

    def __init__(self, dut, config: AcceleratorConfig, stalls: float, seed: int) -> None:
        self.dut, self.config, self.stalls = dut, config, stalls
        self.random = random.Random(seed)
        self.factors: dict[int, int] = {}
        self.q_codes: dict[tuple, int] = {}
        self.q_scales: dict[tuple, int] = {}
        self.memory: dict[int, int] = {}
        self.cycles = 0
        self.record: list[int] = []  # address and beats left of the descriptor in hand
        self.descriptors: list[tuple[int, int]] = []
        self.answers: list[int] = []  # cycles until each descriptor is answered, the oldest first
        self.acknowledged = 0
        self.groups = 0  # descriptors of a KV head; 0: no matter
        self.queries: list[int] = []  # words of Q that were there when a head was done
        self.seen = {"req": False, "data": False}  # offered, and not taken yet

    async def reset(self) -> None:
        d = self.dut
        for signal in (d.cmd__valid, d.a8__en, d.kv__req__ready, d.kv__data__ready):
            signal.value = 0
        for name in (*SOURCES, "gain"):
            getattr(d, f"{name}_write__en").value = 0
            getattr(d, f"{name}_clear").value = 0
        d.kv__idle.value, d.kv__done.value = 1, 0
        d.rst.value = 1
        cocotb.start_soon(self.clock())
        for _ in range(3):
            await FallingEdge(d.clk)
        d.rst.value = 0

    async def clock(self) -> None:
        from cocotb.clock import Clock

        Clock(self.dut.clk, 10, "ns", impl="gpi").start()
        await Timer(1, "ns")

    async def cycle(self) -> None:
        """To the next cycle; what was set before is seen by this edge."""
        d = self.dut
        # With stalls the memory is ready only for what it has seen.
        for name, turn in (("req", not self.record), ("data", bool(self.record))):
            ready = turn and self.random.random() >= self.stalls
            ready &= not self.stalls or self.seen[name]
            getattr(d, f"kv__{name}__ready").value = int(ready)
        self.answers = [max(0, left - 1) for left in self.answers]
        d.kv__idle.value = int(not self.record and not self.answers)
        done = bool(self.answers) and not self.answers[0]
        d.kv__done.value = int(done)
        if done:
            del self.answers[0]
        await ReadOnly()
        for name in self.seen:
            valid, ready = (int(getattr(d, f"kv__{name}__{n}").value) for n in ("valid", "ready"))
            self.seen[name] = bool(valid and not ready)
        self.cycles += 1
        if int(d.factor__en.value):
            token = int(d.factor__token.value)
            assert token not in self.factors
            self.factors[token] = int(d.factor__data.value)
        if int(d.q_write__en.value):
            key = tuple(int(getattr(d, f"q_write__{n}").value) for n in ("token", "head", "word"))
            assert key not in self.q_codes
            self.q_codes[key] = int(d.q_write__data.value)
        if int(d.q_scale__en.value):
            key = tuple(int(getattr(d, f"q_scale__{n}").value) for n in ("token", "head"))
            assert key not in self.q_scales
            self.q_scales[key] = int(d.q_scale__data.value)
        if int(d.kv__req__valid.value) and int(d.kv__req__ready.value):
            payload = int(d.kv__req__payload.value)
            self.record = [payload & 0xFFFFFFFF, payload >> 32]
            self.descriptors.append((self.record[0], self.record[1]))
        elif int(d.kv__data__valid.value) and int(d.kv__data__ready.value):
            payload = int(d.kv__data__payload.value)
            beat = self.config.bus_bytes
            assert payload >> (8 * beat) == (1 << beat) - 1
            for i in range(beat):
                assert self.record[0] + i not in self.memory
                self.memory[self.record[0] + i] = payload >> (8 * i) & 0xFF
            self.record = [self.record[0] + beat, self.record[1] - 1]
            if not self.record[1]:
                self.record = []
                self.answers.append(self.random.randint(1, 60) if self.stalls else 1)
        if self.groups:
            # A head is done when its descriptors were answered, the last one a cycle before.
            assert int(d.heads_done.value) == self.acknowledged // self.groups
        self.acknowledged += done
        if self.groups and done and not self.acknowledged % self.groups:
            self.queries.append(len(self.q_codes))
        await FallingEdge(d.clk)

    async def fill(self, name: str, rows: np.ndarray) -> None:
        """Rows into a row memory, after a clear of its statistics."""
        d, lanes = self.dut, self.config.lanes
        port = {
            n: getattr(d, f"{name}_write__{n}")
            for n in ("en", "row", "word", "data", "mask")
            if hasattr(d, f"{name}_write__{n}")
        }
        getattr(d, f"{name}_clear").value = 1
        await self.cycle()
        getattr(d, f"{name}_clear").value = 0
        port["en"].value = 1
        port["mask"].value = (1 << lanes) - 1
        for r, row in enumerate(rows):
            for w, word in enumerate(row.reshape(-1, lanes)):
                if "row" in port:
                    port["row"].value = r
                port["word"].value = w
                port["data"].value = int.from_bytes(word.astype("<f4").tobytes(), "little")
                await self.cycle()
        port["en"].value = 0

    async def run(self, command: bytes, tokens: int, position: int, groups: int = 0) -> int:
        """One command to its end; the cycles it took. A KV_QUANT writes each KV head in `groups`
        descriptors."""
        d = self.dut
        payload = int.from_bytes(command, "little")
        for value, lsb in ((position, 528), (tokens, 560)):
            payload |= value << lsb
        d.cmd__payload.value = payload
        d.cmd__valid.value = 1
        assert int(d.cmd__ready.value) and not int(d.busy.value)
        begin = self.cycles
        await self.cycle()
        self.acknowledged, self.groups, self.queries = 0, groups, []
        d.cmd__valid.value = 0
        d.cmd__payload.value = self.random.getrandbits(592)  # nobody holds it
        while int(d.busy.value):
            assert not int(d.cmd__ready.value)
            await self.cycle()
            assert self.cycles - begin < 200_000
        took = self.cycles - begin
        await self.cycle()
        self.groups = 0
        return took

    async def a8_row(self, row: int, tiles: int) -> np.ndarray:
        d = self.dut
        out = []
        for tile in range(tiles):
            d.a8__en.value, d.a8__row.value, d.a8__word.value = 1, row, tile
            await self.cycle()
            d.a8__en.value = 0
            await self.cycle()
            data = int(d.a8__data.value).to_bytes(self.config.tile_inputs, "little")
            out.append(np.frombuffer(data, np.int8))
        return np.array(out).astype(np.int64)


async def start() -> tuple[Driver, AcceleratorConfig, dict, np.random.Generator]:
    p = params()
    config = variant(p)
    driver = Driver(cocotb.top, config, p.get("stalls", 0), p["seed"])
    await driver.reset()
    return driver, config, p, np.random.default_rng(p["seed"])


@cocotb.test()
async def check_norm_quant(dut) -> None:
    driver, c, p, rng = await start()
    for case in p["norm_quant"]:
        name, n, tokens = case["source"], case["n"], case["tokens"]
        norm, with_gain, head = case["norm"], case["gain"], case["head"]
        if kinds := case.get("rows"):
            x = np.stack([extreme_row(kind, n) for kind in kinds])
            gain = extreme_row(with_gain, n) if with_gain else None
        else:
            x = np.stack([some_row(rng, n) for _ in range(tokens)])
            gain = numeric.sanitise(rng.standard_normal(n).astype(F32)) if with_gain else None
        inv_n, eps = F32(1 / n), F32(case.get("eps", 1e-5 if rng.integers(2) else 1e-6))
        await driver.fill(name, x)
        await driver.fill(
            "gain", (rng.standard_normal((1, n)) if gain is None else gain[None]).astype(F32)
        )
        command = isa.encode(
            Op.NORM_QUANT,
            source=int(SOURCES[name]),
            norm=norm,
            gain=bool(with_gain),
            head=head,
            follow=0,
            ew=n // c.lanes,
            inv_n=inv_n,
            eps=eps,
        )
        driver.factors.clear()
        took = await driver.run(command, tokens, 0)
        dut._log.info(f"NORM_QUANT {case} took {took}")
        codes, factors = norm_quant.reference(c, x, gain, norm, inv_n, eps, head)
        for row, want in enumerate(codes):
            got = await driver.a8_row(row, codes.shape[1])
            np.testing.assert_array_equal(got, want, err_msg=f"{case} row {row}")
        want = {t: int(v) for t, v in enumerate(factors.view(np.uint32))}
        assert driver.factors == want, case
        most = norm_quant_cycles(c, n // c.lanes, tokens, norm, head)
        assert took == most, (case, took, most)


@cocotb.test()
async def check_kv_quant(dut) -> None:
    driver, c, p, rng = await start()
    for case in p["kv_quant"]:
        per_kv, kv_heads, dim = case["heads_per_kv"], case["kv_heads"], case["head_dim"]
        tokens, position, kv = case["tokens"], case["position"], KvFormat[case["format"]]
        heads = per_kv * kv_heads
        driver.stalls = case.get("stalls", 0)
        if kinds := case.get("rows"):
            rows = [[extreme_row(kind, dim) for kind in kinds]] * tokens
        else:
            rows = [
                [some_row(rng, dim) for _ in range(heads + 2 * kv_heads)] for _ in range(tokens)
            ]
        x = np.array(rows, F32).reshape(tokens, -1, dim)
        score_scale = F32(numeric.LOG2E / np.sqrt(dim))
        record_bytes = c.record_bytes(dim, kv.bits) + case.get("spare_beats", 0) * c.bus_bytes
        values = {
            "address": 0x1000,
            "port_stride": 0x100000,
            "head_stride": 0x8000,
            "record_bytes": record_bytes,
        }
        await driver.fill("f", x.reshape(tokens, -1))
        command = isa.encode(
            Op.KV_QUANT,
            format=kv,
            heads_per_kv=per_kv,
            kv_heads=kv_heads,
            head_ew=dim // c.lanes,
            score_scale=score_scale,
            **values,
        )
        for seen in (driver.q_codes, driver.q_scales, driver.memory, driver.descriptors):
            seen.clear()
        groups = record_descriptors.token_groups(c, tokens)
        took = await driver.run(command, tokens, position, len(groups))
        dut._log.info(f"KV_QUANT {case} took {took}")
        codes, scales, written = kv_quant.reference(
            c,
            kv,
            x[:, :heads],
            x[:, heads : heads + kv_heads],
            x[:, heads + kv_heads :],
            score_scale,
            record_bytes,
        )
        want_q = {
            (t, h, w): int.from_bytes(
                codes[t, h, w * c.lanes : (w + 1) * c.lanes].astype("<i2").tobytes(), "little"
            )
            for t in range(tokens)
            for h in range(heads)
            for w in range(dim // c.lanes)
        }
        assert driver.q_codes == want_q, case
        assert driver.q_scales == {
            (t, h): int(scales.view(np.uint32)[t, h]) for t in range(tokens) for h in range(heads)
        }, case
        want = {}
        for t in range(tokens):
            for h in range(kv_heads):
                at = record_descriptors.record_address(c, values, h, position + t)
                want |= {at + i: int(b) for i, b in enumerate(written[t, h])}
        assert driver.memory == want, case
        of_command = values | {"kv_heads": kv_heads}
        assert driver.descriptors == list(
            record_descriptors.reference(c, of_command, tokens, position)
        ), case
        # A head that is done has its queries with the attention unit, whatever comes after it.
        assert len(driver.queries) == kv_heads
        for h, there in enumerate(driver.queries):
            assert there >= (h + 1) * per_kv * tokens * dim // c.lanes, case
        most = kv_quant_cycles(c, per_kv, kv_heads, dim // c.lanes, tokens, record_bytes)
        assert driver.stalls or took <= most, (case, took, most)


@cocotb.test()
async def check_reset(dut) -> None:
    """A reset in the middle of a command leaves nothing behind."""
    driver, c, _, rng = await start()
    x = np.stack([some_row(rng, 64) for _ in range(2)])
    dims = {"address": 0, "port_stride": 4096, "head_stride": 1024}
    commands = [
        isa.encode(
            Op.NORM_QUANT,
            source=1,
            norm=1,
            gain=0,
            head=0,
            ew=64 // c.lanes,
            follow=0,
            inv_n=F32(1 / 64),
            eps=F32(1e-6),
        ),
        isa.encode(
            Op.KV_QUANT,
            format=KvFormat.INT8,
            heads_per_kv=2,
            kv_heads=1,
            head_ew=16 // c.lanes,
            score_scale=F32(1),
            record_bytes=c.record_bytes(16, KvFormat.INT8.bits),
            **dims,
        ),
    ]
    for after in (20, 60, 120, 200):
        for command in commands:
            await driver.fill("f", x)
            dut.cmd__payload.value = int.from_bytes(command, "little") | 2 << 560
            dut.cmd__valid.value = 1
            await driver.cycle()
            dut.cmd__valid.value = 0
            for _ in range(after):
                await driver.cycle()
            dut.rst.value = 1
            await driver.cycle()
            dut.rst.value = 0
            driver.record, driver.answers = [], []
            for seen in (driver.factors, driver.memory, driver.q_codes, driver.q_scales):
                seen.clear()
            assert not int(dut.busy.value)
            await driver.fill("f", x)
            await driver.run(commands[0], 2, 0)
            codes, factors = norm_quant.reference(c, x, None, True, F32(1 / 64), F32(1e-6), False)
            for row in range(2):
                np.testing.assert_array_equal(await driver.a8_row(row, codes.shape[1]), codes[row])
            assert driver.factors == dict(enumerate(map(int, factors.view(np.uint32))))
            assert not driver.q_codes and not driver.memory
            driver.factors.clear()


def norm_cases(config: AcceleratorConfig, seed: int, count: int, most: int) -> list[dict]:
    rng = random.Random(seed)
    # The longest rows fill the ring of products.
    cases = [
        {
            "source": "f",
            "n": most,
            "tokens": min(config.chunk, 4),
            "norm": True,
            "gain": True,
            "head": False,
        }
    ]
    for i in range(count):
        source = rng.choice("xf")
        longest = min(most, config.max_hidden if source == "x" else config.longest_row)
        cases.append(
            {
                "source": source,
                "n": rng.randint(1, longest // config.lanes) * config.lanes,
                "tokens": rng.randint(1, min(config.chunk, 4)),
                "norm": bool(i & 1),
                "gain": bool(i & 2),
                "head": i % 8 >= 6,
            }
        )
    return cases


def kv_cases(config: AcceleratorConfig, seed: int, count: int) -> list[dict]:
    rng = random.Random(seed)
    cases = []
    while len(cases) < count:
        kv_heads = rng.randint(1, 3)
        per_kv = rng.randint(1, 3)
        heads = kv_heads * per_kv
        pad = config.head_pad
        dim = rng.randint(1, config.max_head_dim // pad) * pad
        if heads > config.max_heads or (heads + 2 * kv_heads) * dim > config.max_row:
            continue
        cases.append(
            {
                "format": [*KvFormat][len(cases) % len(KvFormat)].name,
                "heads_per_kv": per_kv,
                "kv_heads": kv_heads,
                "head_dim": dim,
                "tokens": rng.randint(1, min(config.chunk, 9)),
                "position": rng.randint(0, 40),
                "stalls": rng.choice([0, 0.3, 0.9]),
                "spare_beats": rng.choice([0, 0, 3]),
            }
        )
    return cases


def extreme_norm_cases(config: AcceleratorConfig) -> list[dict]:
    """Rows of every extreme size, with every gain, all modes, with and without an epsilon."""
    kinds = [*SIZES]
    return [
        {
            "source": "f",
            "n": 4 * config.lanes,
            "tokens": len(rows),
            "rows": rows,
            "norm": norm,
            "eps": eps,
            "gain": gain,
            "head": head,
        }
        for rows in (kinds[at : at + config.chunk] for at in range(0, len(kinds), config.chunk))
        for gain in (None, *kinds)
        for norm, eps in ((False, 1e-5), (True, 1e-5), (True, 0), (True, 1e30))
        for head in (False, True)
    ]


def extreme_kv_case(config: AcceleratorConfig, kv: KvFormat) -> dict:
    """Heads of every extreme size: queries and keys, and values in another order."""
    kinds = [*SIZES]
    return {
        "format": kv.name,
        "heads_per_kv": 1,
        "kv_heads": len(kinds),
        "head_dim": config.head_pad,
        "tokens": 2,
        "position": 31,
        "rows": [*kinds, *kinds, *reversed(kinds)],
    }


def run(spec: dict, norms: list[dict], kvs: list[dict], test: str | None = None) -> None:
    run_block(
        Bench(variant(spec)),
        top="vector_bench",
        module=__file__,
        test=test,
        params=spec | {"seed": 5, "norm_quant": norms, "kv_quant": kvs},
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"config": "test"},
        {"config": "test", "fields": {"tokens": 1, "ports": 1, "bus_bits": 256}},
        {
            "config": "test",
            "fields": {
                "tables": 8,
                "rows": 8,
                "lanes": 8,
                "attention_dims": 8,
                "ports": 4,
                "chunk": 9,
            },
        },
    ],
    ids=["test", "one-digit-wide-bus", "eight-lanes-narrow-bus"],
)
def test_commands(spec: dict) -> None:
    c = variant(spec)
    run(spec, norm_cases(c, 1, 16, 128), kv_cases(c, 2, 12))


def test_extremes() -> None:
    c = load_config("test")
    run({"config": "test"}, extreme_norm_cases(c), [extreme_kv_case(c, kv) for kv in KvFormat])


def test_kv260_keeps_up() -> None:
    """A chunk of 16 tokens of BitNet 0.73B: no cycle is lost between 48 heads of 12 words."""
    c = load_config("kv260")
    cases = [
        {
            "format": kv.name,
            "heads_per_kv": 1,
            "kv_heads": 16,
            "head_dim": 96,
            "tokens": 16,
            "position": 1000,
        }
        for kv in (KvFormat.INT16, KvFormat.INT8)
    ]
    run({"config": "kv260"}, [], cases, "check_kv_quant")
    for kv in KvFormat:
        record = c.record_bytes(96, kv.bits)
        most = kv_quant_cycles(c, 1, 16, 12, 16, record)
        assert most <= 48 * 12 * 16 + 200


def test_tiny() -> None:
    spec = {"config": "tiny"}
    c = variant(spec)
    run(spec, norm_cases(c, 3, 8, 200), kv_cases(c, 4, 3))


def test_latencies_of_the_cycle_model_are_those_of_the_units() -> None:
    # Written as numbers, since the model does without Amaranth.
    assert {norm: Scalar.latency(norm) for norm in (False, True)} == cycles.SCALAR_LATENCY
    assert HeadScales.LATENCY == cycles.HEAD_SCALES_LATENCY
