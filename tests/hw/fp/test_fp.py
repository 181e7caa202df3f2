"""All floating-point pipelines against the numeric contract, in bulk."""

import gc
import warnings
from dataclasses import dataclass

import cocotb
import numpy as np
import pytest
from amaranth import Array, Cat, Module, Signal
from amaranth.hdl import UnusedElaboratable
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from terntable.hw import fp, numeric
from terntable.hw.memories import MemoryPlatform
from terntable.sim.harness import params, run_block

BATCH = 64
OPERAND_BITS = 72
RESULT_BITS = 64
PERIOD = 4


# ---------------------------------------------------------------- operands


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)


def floats(rng, n):
    """Numbers of the contract: all exponents, the extremes, ones close to 1, short significands."""
    b = rng.integers(0, 2**32, n, dtype=np.uint32)
    kind = rng.integers(0, 4, n)
    extreme = rng.choice([0, 1, 2, 3, 63, 64, 190, 191, 252, 253, 254], n)
    exponent = np.where(
        kind == 0, extreme, np.where(kind == 1, rng.integers(120, 134, n), (b >> 23) & 0xFF)
    ).astype(np.uint32)
    b = (b & 0x807FFFFF) | (exponent << 23)
    wide = b.astype(np.int64)
    kind = rng.integers(0, 8, n)
    fraction = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3],
        [0, 0x7FFFFF, 1 << (wide % 23), wide & (0x7FFFFF << (wide % 24)) & 0x7FFFFF],
        wide & 0x7FFFFF,
    ).astype(np.uint32)
    return numeric.sanitise((b & np.uint32(0xFF800000)) | fraction)


def corners():
    """The extremes, and 1e30: every block gets all of them, those with two operands all pairs."""
    tiny = np.nextafter(np.float32(2.0**-126), np.float32(1))
    sizes = [0, tiny, 2.0**-125, 1e-30, 1e-5, 1, 1.5, 127, 32767, 1e30, 2.0**127, numeric.LARGEST]
    return numeric.sanitise(np.float32([s * x for x in sizes for s in (1, -1)]))


def with_corners(*operands):
    """Operands whose first ones are all combinations of corners; the rest as they were."""
    every = np.meshgrid(*[corners()] * len(operands))
    n = min(every[0].size, len(operands[0]))
    return tuple(
        np.concatenate([c.reshape(-1)[:n], x[n:]]) for c, x in zip(every, operands, strict=True)
    )


def neighbours(rng, a):
    """Numbers within a few places and powers of two of `a`, either sign: ties, cancellation."""
    b = bits(a).astype(np.int64) + rng.integers(-4, 5, len(a))
    b += rng.choice([0, 0, 1, -1, 2, -2, 22, 23, 24, 25, 26, -24], len(a)) << 23
    b = np.clip(b & 0x7FFFFFFF, 0, 0x7F7FFFFF) | (rng.integers(0, 2, len(a)) << 31)
    b = np.where(rng.random(len(a)) < 0.3, b & ~np.int64(0xFFF), b)
    return numeric.sanitise(b.astype(np.uint32))


def partners(rng, a):
    """Factors whose product with `a` is often at the flush or the saturation boundary."""
    any_ = floats(rng, len(a))
    target = rng.choice([-128, -127, -126, -125, 127, 128], len(a))
    exponent = np.clip(target - (numeric.exponent(a) - 127) + 127, 1, 254).astype(np.uint32)
    near = numeric.sanitise((any_.view(np.uint32) & np.uint32(0x807FFFFF)) | (exponent << 23))
    return np.where(rng.random(len(a)) < 0.5, near, any_)


def integers(rng, n, width, signed=True):
    """All magnitudes; ones that round to ties; the extremes."""
    x = rng.integers(0, 2**63, n, dtype=np.uint64) * np.uint64(2) + rng.integers(
        0, 2, n, dtype=np.uint64
    )
    x = x >> np.uint64(64 - width + signed)
    x >>= rng.integers(0, width, n).astype(np.uint64)
    tie = rng.integers(0, 64, n).astype(np.uint64)
    x = np.where(rng.random(n) < 0.3, (x >> tie) << tie, x)
    x = np.where(rng.random(n) < 0.02, np.uint64(2 ** (width - signed) - 1), x)
    if not signed:
        return x
    x = x.astype(np.int64)
    x = np.where(rng.random(n) < 0.5, -x, x)
    return np.where(rng.random(n) < 0.01, -(2 ** (width - 1)), x)


# ---------------------------------------------------------------- blocks


@dataclass
class Case:
    """A block, its operand ports from the lowest bit up, and stimulus: operands and results."""

    block: wiring.Component
    ports: tuple[str, ...]
    make: object
    serial: bool = False


def mul(rng, n):
    a = floats(rng, n)
    a, b = with_corners(a, partners(rng, a))
    return (bits(a), bits(b)), bits(numeric.mul(a, b))


def add(rng, n):
    a = floats(rng, n)
    b = np.where(rng.random(n) < 0.7, neighbours(rng, a), floats(rng, n))
    a, b = with_corners(a, b)
    subtract = rng.integers(0, 2, n)
    result = np.where(subtract, numeric.sub(a, b), numeric.add(a, b))
    return (bits(a), bits(b), subtract), bits(result)


def from_int(width, signed=True):
    def make(rng, n):
        x = integers(rng, n, width, signed)
        return (x.astype(np.uint64) & np.uint64(2**width - 1),), bits(numeric.from_int(x))

    return Case(fp.FromInt(width, signed), ("i",), make)


def to_int(bits_, fraction, low, high):
    def make(rng, n):
        halves = integers(rng, n, bits_ + 2) / np.float64(2) ** (fraction + 1)
        x = np.where(rng.random(n) < 0.7, halves, floats(rng, n))
        (x,) = with_corners(numeric.finish(x))
        return (bits(x),), numeric.to_int(x, fraction, low, high).astype(np.uint64)

    return Case(fp.ToInt(bits_, fraction, low, high), ("i",), make)


def scale2(rng, n):
    (x,) = with_corners(floats(rng, n))
    k = rng.integers(-1024, 1024, n) >> rng.integers(0, 8, n)
    return (bits(x), k & 0x7FF), bits(numeric.scale2(x, k))


def exp2(rng, n):
    x = rng.integers(0, 2**22, n)
    return (x,), numeric.exp2_fraction(x)


def reciprocal(rng, n):
    x = rng.integers(0, 2**24, n)
    return (x,), fp.Reciprocal.reference(x)


def sigmoid(rng, n):
    x = np.where(rng.random(n) < 0.7, rng.normal(0, 12, n).astype(np.float32), floats(rng, n))
    (x,) = with_corners(x)
    return (bits(x),), bits(numeric.sigmoid(x))


def divide(rng, n):
    a, b = floats(rng, n), floats(rng, n)
    b = np.where(rng.random(n) < 0.3, neighbours(rng, a), b)
    a, b = with_corners(a, b)
    return (bits(a), bits(b)), bits(numeric.div(a, b))


def sqrt(rng, n):
    a = np.abs(floats(rng, n))
    # Squares, and their neighbours.
    root = rng.integers(2**11, 2**12, n).astype(np.float32)
    square = numeric.sanitise((bits(root * root) + rng.integers(0, 2, n)).astype(np.uint32))
    a = np.where(rng.random(n) < 0.3, square, a)
    a = np.abs(with_corners(a)[0])
    return (bits(a),), bits(numeric.sqrt(a))


class OnEcp5(wiring.Component):
    """A block as it is cut for an ECP5."""

    def __init__(self, block):
        super().__init__(block.signature)
        self.LATENCY = block.LATENCY
        self._block = block

    def elaborate(self, platform):
        m = self._block.elaborate(MemoryPlatform("ecp5"))
        for name in self.signature.members:
            inner, outer = getattr(self._block, name), getattr(self, name)
            if self.signature.members[name].flow is Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m


def cases():
    return {
        "mul": Case(fp.Mul(), ("a", "b"), mul),
        "mul_ecp5": Case(OnEcp5(fp.Mul()), ("a", "b"), mul),
        "add": Case(fp.Add(), ("a", "b", "subtract"), add),
        "from_int24": from_int(24),
        "from_int40": from_int(40),
        "from_int49": from_int(49, signed=False),
        "from_int64": from_int(64),
        "to_int8": to_int(8, 0, -127, 127),
        "to_int16": to_int(16, 0, -32767, 32767),
        "to_int17": to_int(17, 0, -127 * 256, 127 * 256),
        "to_int32": to_int(32, 22, -(2**31) + 1, 2**31 - 1),
        "to_int32_positive": to_int(32, 22, 0, 2**31 - 1),
        "scale2": Case(fp.Scale2(), ("x", "k"), scale2),
        "exp2": Case(fp.Exp2Fraction(), ("i",), exp2),
        "reciprocal": Case(fp.Reciprocal(), ("i",), reciprocal),
        "sigmoid": Case(fp.Sigmoid(), ("i",), sigmoid),
        "divide": Case(fp.Divide(), ("a", "b"), divide, serial=True),
        "sqrt": Case(fp.Sqrt(), ("a",), sqrt, serial=True),
    }


class Bulk(wiring.Component):
    """Feeds BATCH operands to the picked block and gathers its results, without the test's help.

    An operand every `interval` cycles; its result is at the output `lag` operands later.
    """

    def __init__(self, cases):
        self._cases = cases
        super().__init__(
            {
                "load": In(1),
                "pick": In(range(len(cases))),
                "interval": In(8),
                "lag": In(8),
                "x": In(BATCH * OPERAND_BITS),
                "y": Out(BATCH * RESULT_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queue = Signal(BATCH * OPERAND_BITS)
        phase = Signal(8)
        left = Signal(16)
        begin = Signal()
        m.d.comb += begin.eq((phase == 0) & (left != 0))
        outputs = []
        for name, case in self._cases.items():
            m.submodules[name] = case.block
            ports = [getattr(case.block, p) for p in case.ports]
            m.d.comb += Cat(p.as_value() if hasattr(p, "as_value") else p for p in ports).eq(queue)
            if case.serial:
                m.d.comb += case.block.start.eq(begin)
            outputs.append(case.block.o)
        with m.If(left != 0):
            m.d.sync += phase.eq(phase + 1)
            with m.If(phase + 1 == self.interval):
                m.d.sync += [phase.eq(0), left.eq(left - 1), queue.eq(queue >> OPERAND_BITS)]
        result = Signal(RESULT_BITS)
        m.d.comb += result.eq(Array(outputs)[self.pick])
        with m.If(begin):
            m.d.sync += self.y.eq(Cat(self.y[RESULT_BITS:], result))
        with m.If(self.load):
            m.d.sync += [queue.eq(self.x), phase.eq(0), left.eq(BATCH + self.lag)]
        return m


@cocotb.test()
async def check_bulk(dut):
    Clock(dut.clk, PERIOD, "ns", impl="gpi").start()
    rng = np.random.default_rng(params()["seed"])
    dut.rst.value = 1
    dut.load.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    for pick, (name, case) in enumerate(cases().items()):
        latency = case.block.LATENCY
        interval, lag = (latency, 1) if case.serial else (1, latency)
        dut.pick.value, dut.interval.value, dut.lag.value = pick, interval, lag
        count = params()["serial" if case.serial else "count"]
        operands, expected = case.make(rng, count)
        widths = [len(getattr(case.block, p)) for p in case.ports]
        mask = (1 << len(case.block.o)) - 1
        for at in range(0, count, BATCH):
            packed = 0
            for n in range(BATCH):
                shift = n * OPERAND_BITS
                for values, width in zip(operands, widths, strict=True):
                    packed |= int(values[at + n]) << shift
                    shift += width
            dut.x.value = packed
            dut.load.value = 1
            await RisingEdge(dut.clk)
            dut.load.value = 0
            await Timer(((BATCH + lag) * interval + 2) * PERIOD, "ns")
            got = dut.y.value.to_unsigned()
            for n in range(BATCH):
                value, right = got >> (n * RESULT_BITS) & mask, int(expected[at + n]) & mask
                given = [hex(int(values[at + n])) for values in operands]
                assert value == right, f"{name}({', '.join(given)}) = {value:#x}, not {right:#x}"
            await RisingEdge(dut.clk)
        dut._log.info("%s: %d operands", name, count)


def run(seed, count, serial):
    run_block(
        Bulk(cases()),
        top="bulk",
        module=__file__,
        params={"seed": seed, "count": count * BATCH, "serial": serial * BATCH},
    )


def test_bulk():
    run(seed=1, count=200, serial=40)


@pytest.mark.slow
def test_bulk_many():
    run(seed=2, count=4000, serial=800)


@pytest.mark.parametrize(
    "make", [lambda: fp.FromInt(65), lambda: fp.FromInt(1), lambda: fp.ToInt(8, 0, -128, 128)]
)
def test_sizes_that_do_not_fit(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        with pytest.raises(ValueError, match=r"(65|1: 2 to 64|128 must)") as info:
            make()
        del info
        gc.collect()
