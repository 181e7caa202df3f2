"""FirstError: the first report stands until it is cleared."""

from __future__ import annotations

from amaranth import Cat, Value
from amaranth.hdl import Assert, Cover

from terntable.hw.axi.report import FirstError

from .planted import Bug
from .proof import Proof, Suite


def bench(b, block, inputs):
    m = b.m
    m.submodules.dut = dut = block(inputs)
    reports = [Value.cast(getattr(dut, f"i{n}")) for n in range(inputs)]
    for n, report in enumerate(reports):
        m.d.comb += report.eq(b.free(len(report), f"report{n}"))
    m.d.comb += dut.clear.eq(b.free(1, "clear"))
    kept = Value.cast(dut.o)

    with m.If(b.before(dut.clear)):
        m.d.comb += Assert(~dut.o.valid)
    with m.Elif(b.before(dut.o.valid)):
        m.d.comb += Assert(kept == b.before(kept))
    with m.Else():
        before = [b.before(report) for report in reports]
        first = [value[0] & ~Cat(v[0] for v in before[:n]).any() for n, value in enumerate(before)]
        m.d.comb += Assert(dut.o.valid == Cat(first).any())
        for chosen, value in zip(first, before, strict=True):
            with m.If(chosen):
                m.d.comb += Assert(kept == value)
    m.d.comb += Cover(b.before(b.before(dut.clear)) & dut.o.valid & (dut.o.unit == 7))


PROOFS = [Proof(FirstError, bench, (3,), 2)]
SUITE = Suite(
    PROOFS,
    reach=(PROOFS[0], 6),
    bugs=[
        (PROOFS[0], bug)
        for bug in (
            Bug("keeps the last", "report.valid & ~self.o.valid", "report.valid"),
            Bug("last input first", "reversed(range(self._inputs))", "range(self._inputs)"),
        )
    ],
)
