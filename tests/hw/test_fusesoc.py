"""The FuseSoC core file: FuseSoC reads it, and gives each tool the form of the design for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from terntable.hw.config import GATEWARE_VERSION, load_config
from terntable.hw.fusesoc import core_file
from terntable.sim import toolchain

pytest.importorskip("fusesoc", reason="FuseSoC is not installed: pip install 'terntable[dev]'")
from fusesoc.capi2.coreparser import Core2Parser
from fusesoc.core import Core

TOP = "module terntable(input aclk, output irq);\n  assign irq = aclk;\nendmodule\n"
KV260, TEST = load_config("kv260"), load_config("test")


def read(folder: Path, text: str) -> Core:
    file = folder / "terntable.core"
    file.write_text(text)
    return Core(Core2Parser(), str(file))


def names(core: Core, tool: str | None, target: str = "default") -> list[str]:
    flags = {"target": target, "is_toplevel": True} | ({"tool": tool} if tool else {})
    return [file["name"] for file in core.get_files(flags)]


def test_each_tool_gets_its_form(tmp_path: Path) -> None:
    core = read(tmp_path, core_file(KV260, "terntable", "terntable_sim.v"))
    assert str(core.name) == f"terntable:accelerator:kv260:{GATEWARE_VERSION}"
    assert f"{KV260.hash:08x}" in core.get_description()
    for tool in ("vivado", "yosys", None):
        assert names(core, tool) == ["terntable.v"]
    assert names(core, "icarus") == ["terntable_sim.v"]
    assert names(core, "verilator") == ["terntable_sim.v", "terntable.vlt"]
    assert names(core, "verilator", "lint") == ["terntable.vlt", "terntable_sim.v"]


def test_a_design_without_primitives_has_one_form(tmp_path: Path) -> None:
    core = read(tmp_path, core_file(TEST, "terntable", "terntable.v"))
    for tool in ("vivado", "icarus", None):
        assert names(core, tool) == ["terntable.v"]
    assert names(core, "verilator") == ["terntable.v", "terntable.vlt"]


@pytest.mark.parametrize(("ending", "ok"), [("endmodule\n", True), ("endmodul\n", False)])
def test_fusesoc_runs_the_lint(tmp_path: Path, ending: str, ok: bool) -> None:
    cores, work = tmp_path / "cores", tmp_path / "work"
    cores.mkdir()
    work.mkdir()
    (cores / "terntable.v").write_text(TOP.replace("endmodule\n", ending))
    (cores / "terntable.vlt").write_text("`verilator_config\n")
    (cores / "terntable.core").write_text(core_file(TEST, "terntable", "terntable.v"))
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(cores), "run",
               "--target=lint", "terntable:accelerator:test"]  # fmt: skip
    env = toolchain.find().env()
    env["PATH"] = f"{env['VERILATOR_ROOT']}/bin:{env['PATH']}"
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    assert (done.returncode == 0) is ok, done.stderr
