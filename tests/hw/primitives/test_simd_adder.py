"""The SIMD adder: NumPy, its twin and the DSP48E2; the model of DSP48E2 against Yosys' DSP48E1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.primitives.simd_adder import CASCADE_LATENCY, LATENCY, DspSimdAdder, SimdAdder
from terntable.sim.harness import run_block

from .forms import DSP48E2, check_forms, yosys_model

HERE = Path(__file__).parent


@pytest.mark.parametrize("lanes", [4, 2])
def test_sums(lanes: int) -> None:
    width = 48 // lanes
    rng = np.random.default_rng(lanes)
    low, high = -(1 << width - 1), 1 << width - 1
    a, c, before = rng.integers(low, high, (3, 100, lanes))
    use_c = rng.integers(0, 2, 100)
    expected = (a + c * use_c[:, None] + before - low) % (1 << width) + low
    dut = SimdAdder(lanes)

    async def testbench(ctx):
        got = []
        for i in range(100 + LATENCY):
            now = min(i, 99)
            for lane in range(lanes):
                ctx.set(dut.a[lane], int(a[now, lane]))
                ctx.set(dut.c[lane], int(c[now, lane]))
            ctx.set(dut.use_c, int(use_c[now]))
            earlier = before[max(i - LATENCY + CASCADE_LATENCY, 0) % 100]
            ctx.set(dut.cascade, sum(int(v) % (1 << width) << width * n
                                     for n, v in enumerate(earlier)))  # fmt: skip
            got.append([ctx.get(dut.sum[lane]) for lane in range(lanes)])
            await ctx.tick()
        assert np.array_equal(got[LATENCY:], expected)

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize(
    "lanes, options", [(4, {}), (2, {}), (4, {"cascade": False}), (2, {"a": False})]
)
def test_primitive_equals_twin(lanes: int, options: dict) -> None:
    check_forms(SimdAdder(lanes, **options), DspSimdAdder(lanes, **options), [DSP48E2])


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_other_lanes_are_refused() -> None:
    with pytest.raises(ValueError, match="lanes is 3"):
        SimdAdder(3)


OLDER = """
module pair(input clk, input rst, input [29:0] a, input [17:0] b, input [47:0] c, input [47:0] pcin,
            input [4:0] choice, input [1:0] alumode{outputs});
    // Any operands of the adder but a product.
    wire [1:0] x = choice[0] ? 2'b11 : {{choice[1], 1'b0}};
    wire [6:0] opmode = {{1'b0, choice[3:2], choice[4], choice[4], x}};
{blocks}
endmodule
"""
BLOCK = """
    {block} #(.USE_SIMD("{simd}"), .USE_MULT("NONE"), .AREG(1), .BREG(1), .CREG(1), .PREG(1),
        .MREG(0), .ADREG(0), .DREG(0), .INMODEREG(0), .OPMODEREG(1), .ALUMODEREG(1), .CARRYINREG(0),
        .CARRYINSELREG(0), .ACASCREG(1), .BCASCREG(1)) {form}_{simd}_block(
        .CLK(clk), .A(a), .B(b), .C(c), .D(0), .PCIN(pcin), .OPMODE(opmode), .ALUMODE(alumode),
        .INMODE(0), .CARRYIN(0), .CARRYINSEL(0), .CARRYCASCIN(0), .MULTSIGNIN(0), .ACIN(0),
        .BCIN(0), .CEA1(1), .CEA2(1), .CEAD(1), .CEALUMODE(1), .CEB1(1), .CEB2(1), .CEC(1),
        .CECARRYIN(1), .CECTRL(1), .CED(1), .CEINMODE(1), .CEM(1), .CEP(1), .RSTA(0),
        .RSTALLCARRYIN(0), .RSTALUMODE(0), .RSTB(0), .RSTC(0), .RSTCTRL(0), .RSTD(0), .RSTINMODE(0),
        .RSTM(0), .RSTP(0), .P({form}_{simd}));
"""


def test_model_of_the_primitive_adds_as_its_predecessor() -> None:
    """Yosys has a model of DSP48E1, whose adder is the same but for the operand W."""
    names = [(form, simd) for simd in ("FOUR12", "TWO24", "ONE48") for form in ("twin", "device")]
    pair = OLDER.format(
        outputs="".join(f", output [47:0] {form}_{simd}" for form, simd in names),
        blocks="".join(
            BLOCK.format(block={"twin": "DSP48E1", "device": "DSP48E2"}[form], form=form, simd=simd)
            for form, simd in names
        ),
    )
    run_block(
        "\n".join([pair, yosys_model("DSP48E1"), DSP48E2]),
        top="pair",
        module=HERE / "forms_cocotb.py",
        params={
            "inputs": [("a", 30), ("b", 18), ("c", 48), ("pcin", 48), ("choice", 5),
                       ("alumode", 2)],
            "outputs": ["FOUR12", "TWO24", "ONE48"],
            "fields": {}, "cycles": 2000, "warm_up": 0, "seed": 1,
        },
    )  # fmt: skip
