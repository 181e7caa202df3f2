"""What FPGA tools say about the generated Verilog, and that it is always the same."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from terntable.hw import regs
from terntable.hw.config import AcceleratorConfig, load_config, weight_memory_plan
from terntable.hw.generate import CORE, FILES, MANIFEST, REGISTER_MAP, SIMULATION, generate
from terntable.sim.accelerator import design_of
from terntable.sim.lint import WAIVERS, unused, warnings
from terntable.sim.netlist import RESOURCES
from terntable.sim.report import report
from terntable.sim.synthesis import SynthesisError, map_design

DIGEST = """
import hashlib
from terntable.hw.config import load_config
from terntable.hw.generate import generate
g = generate(load_config("test"))
print(hashlib.sha256(repr(sorted(g.files().items())).encode()).hexdigest())
"""


OTHER = {
    "name": "other", "array": "select_add", "group": 4, "tables": 2, "rows": 4, "tokens": 1,
    "lanes": 4, "attention_dims": 4, "ports": 4, "bus_bits": 256, "weight_memory": "lutram",
}  # fmt: skip
"""What `test` and `tiny` have not."""


def test_verilator_warns_of_nothing() -> None:
    """No warning without a waiver, no waiver without a warning."""
    test = load_config("test")
    other = AcceleratorConfig.model_validate(test.model_dump() | OTHER)
    buffers = test.model_copy(update={"name": "buffers", "table_buffers": 2})
    said = []
    for config in (test, load_config("tiny"), other, buffers):
        design = design_of(config)
        found = warnings(design.verilog, vlt=design.vlt)
        left = [w for w in found if not any(waiver.covers(w) for waiver in WAIVERS)]
        assert not left, f"{config.name}: {left[0]}"
        said += found
    assert unused(said) == []
    assert len({waiver.name for waiver in WAIVERS}) == len(WAIVERS)
    assert all(waiver.reason for waiver in WAIVERS)


def test_two_processes_write_the_same_bytes() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert len(digests[0].strip()) == 64
    assert digests[0] == digests[1]


@pytest.mark.parametrize("part", [None, "xck26"])
def test_the_manifest_has_every_other_file(part: str | None) -> None:
    config = load_config("test").model_copy(update={"part": part})
    files = generate(config).files()
    assert (SIMULATION in files) == (part is not None)
    manifest = json.loads(files.pop(MANIFEST))
    assert manifest["files"] == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()
    }
    assert set(files) <= set(FILES)
    assert manifest["config"] == config.model_dump()
    assert manifest["config_hash"] == f"{config.hash:08x}"
    # Simulators get the form without primitives.
    assert (SIMULATION in files[CORE]) == (part is not None)


def test_the_register_map_is_that_of_the_gateware() -> None:
    found = json.loads(generate(load_config("test")).files()[REGISTER_MAP])
    assert {r["name"]: r["address"] for r in found["registers"]} == regs.ADDRESS
    assert found["control"] == {"START": 1, "CLEAR": 2, "RESET": 4}
    assert found["errors"].keys() == found["error_meanings"].keys()
    assert found["error_units"]["0"] == "weights"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test", "tiny"])
def test_yosys_maps_everything(name: str) -> None:
    """Every unit's cost adds up to the whole; memories lie where the configuration says."""
    config = load_config(name)
    found = report(config).as_dict()
    assert not found.keys() ^ {
        "config", "part", "family", "hierarchical", "limits", "from", "to", "logic_levels",
        "units", "notes", *RESOURCES,
    }  # fmt: skip
    for key in RESOURCES:
        assert sum(unit[key] for unit in found["units"].values()) == found[key], key
    assert found["logic_levels"] == max(u["logic_levels"] for u in found["units"].values())
    assert found["lut"] > found["lutram"] > 0
    assert found["ff"] > 0 and found["dsp"] > 0 and found["bram36"] > 0
    plan = weight_memory_plan(config)
    assert found["uram"] >= (plan.primitives if config.weight_memory == "uram" else 0)


def test_yosys_refuses_what_no_fpga_has() -> None:
    latch = "module a(input e, d, output reg q);\n  always @* if (e) q = d;\nendmodule\n"
    with pytest.raises(SynthesisError):
        map_design(latch, top="a")
    loop = "module a(input d, output q);\n  wire w;\n  assign w = ~w & d, q = w;\nendmodule\n"
    with pytest.raises(SynthesisError):
        map_design(loop, top="a")
    two_writers = """
        module a(input clk, input [1:0] i, input [7:0] d, output reg [7:0] q);
            reg [7:0] m [0:1];
            always @(posedge clk) begin m[i[0]] <= d; m[i[1]] <= ~d; q <= m[0]; end
        endmodule
    """
    with pytest.raises(SynthesisError):
        map_design(two_writers, top="a")
