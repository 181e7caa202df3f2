"""Runs cocotb tests of one hardware block from pytest.

    def test_counter():
        run_block(Counter(8), top="counter", module=__file__, params={"limit": 9})

    @cocotb.test()
    async def check_counter(dut):
        limit = params()["limit"]
        ...

The model is compiled once per content (terntable.sim.build) and every run has its own folder and
seed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terntable.sim import build, toolchain

_PARAMS = "TERNTABLE_PARAMS"


def params() -> dict[str, Any]:
    """In a cocotb test: the `params` that were given to `run_block`."""
    return json.loads(os.environ.get(_PARAMS, "{}"))


def block_verilog(component: Any, top: str) -> str:
    """The Verilog of an Amaranth component, as module `top`."""
    from amaranth.back import verilog

    return verilog.convert(component, name=top, emit_src=False, strip_internal_attrs=True)


def run_block(
    component_or_verilog: Any,
    *,
    top: str,
    module: str | Path,
    test: str | None = None,
    params: Mapping[str, Any] | None = None,
    extra_sources: Sequence[str | Path] = (),
    plusargs: Sequence[str] = (),
    vlt: str = "",
    seed: int = 1,
    waves: str | Path | None = None,
    timeout: float = 600,
) -> None:
    """Compile a block and run the cocotb tests of a Python file on it.

    `component_or_verilog` is an Amaranth component, a Verilog text, or the Path of a Verilog file,
    whose module `top` becomes the `dut`; all ports of `top` are visible. `extra_sources` are
    Verilog or C++ files besides, `vlt` lines of a Verilator configuration, `plusargs` what the
    Verilog's $value$plusargs finds. `module` is the Python
    file with the tests, `test` the name of one of them (all otherwise). `waves` names an FST file
    to write.

    Raises AssertionError with the log's tail when a test fails, none runs, or the simulation takes
    over `timeout` seconds; UserError when tools are missing; BuildError when the sources are wrong.
    """
    if isinstance(component_or_verilog, str):
        text = component_or_verilog
    elif isinstance(component_or_verilog, Path):
        text = component_or_verilog.read_text(encoding="utf-8")
    else:
        text = block_verilog(component_or_verilog, top)
    extra = {Path(f).name: Path(f).read_text(encoding="utf-8") for f in extra_sources}
    sources = build.Sources(
        top=top,
        verilog={n: t for n, t in extra.items() if n.endswith((".v", ".sv"))} | {f"{top}.v": text},
        cpp={n: t for n, t in extra.items() if n.endswith((".cpp", ".h"))},
        vlt=vlt,
        trace=waves is not None,
    )
    folder = build.compile_model(sources)
    file = Path(module).absolute()
    with tempfile.TemporaryDirectory(prefix="terntable-block-") as text:
        run = Path(text)
        env = cocotb_env(top, file.stem, [file.parent])
        env["COCOTB_RESULTS_FILE"] = str(run / "results.xml")
        env["COCOTB_RANDOM_SEED"] = str(seed)
        env[_PARAMS] = json.dumps(dict(params or {}))
        if test is not None:
            env["COCOTB_TEST_FILTER"] = rf"(^|\.){re.escape(test)}$"
        command = [str(folder / "model"), *plusargs]
        if waves is not None:
            command += ["--trace", "--trace-file", str(Path(waves).absolute())]
        log = run / "sim.log"
        status = toolchain.run_logged(command, log=log, env=env, cwd=run, timeout=timeout)
        problem = _problem(run / "results.xml", status)
        if problem:
            raise AssertionError(f"{top}: {problem}\n{build.tail(log, 80)}")


def cocotb_env(top: str, module: str, path: Sequence[Path]) -> dict[str, str]:
    """Environment of a compiled model whose cocotb tests are in Python module `module`."""
    import cocotb_tools.config
    import find_libpython

    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise RuntimeError("cocotb needs a Python with a shared library (libpython)")
    env = dict(os.environ)
    for name in list(env):
        if name.startswith(("COCOTB_", "PYGPI_", "GPI_")):
            del env[name]
    env |= {
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, sys.path)]),
        # A model that another environment has compiled names its libraries, which may be gone.
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(None, [str(cocotb_tools.config.libs_dir), env.get("LD_LIBRARY_PATH")])
        ),
        "COCOTB_TOPLEVEL": top,
        "COCOTB_TEST_MODULES": module,
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "COCOTB_ANSI_OUTPUT": "0",
        "TOPLEVEL_LANG": "verilog",
    }
    return env


def _problem(results: Path, status: int) -> str | None:
    """What went wrong in a run, by its result file and exit status; None for success."""
    if status == 124:
        return "the simulation timed out"
    try:
        cases = list(ElementTree.parse(results).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return f"the simulation ended without results (status {status})"
    failed = [
        c.get("name", "?")
        for c in cases
        if c.find("failure") is not None or c.find("error") is not None
    ]
    if failed:
        return f"failed: {', '.join(failed)}"
    if all(c.find("skipped") is not None for c in cases):
        return "no cocotb test ran"
    if status:
        return f"the simulation ended with status {status}"
    return None
