"""What is said of a board behind UIO that can't be reached, and of one that can."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from terntable.host.boards.board import load_board
from terntable.host.boards.connect import connect
from terntable.host.uio.open import Machine, open_transport
from terntable.host.uio.sysfs import REGISTER_BYTES, RELOAD, find_buffer, find_uio
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.regs import ADDRESS

from .conftest import Outcome
from .test_devices import CONFIG
from .uio_board import MEMORY_BYTES, EmulatorAccelerator, UioBoard
from .uio_tree import UIO, Tree

REPOSITORY = Path(__file__).parents[2]

# ---------------------------------------------------------------- boards that can't be reached


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.write(0x7000_0000, MEMORY_BYTES)
    return tree


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def machine_of(tree: Tree) -> Machine:
    return Machine(*(tree.folder / name for name in ("sys", "dev", "proc")))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda tree: rmtree(tree.uio),
            r"no UIO device 'terntable' in .*sys/class/uio, there is axi-pmon: load the design",
        ),
        (
            lambda tree: rmtree(tree.uio.parent),
            r"no UIO device 'terntable' .*there is none at all: load the design, sudo sh",
        ),
        (
            lambda tree: (tree.uio / "maps/map0/size").write_text("0x40\n"),
            rf"maps 64 bytes, the registers take {REGISTER_BYTES}: its overlay is of another",
        ),
        (
            lambda tree: rmtree(tree.uio / "maps"),
            r"maps 0 bytes",
        ),
        (
            lambda tree: rmtree(tree.buffer.parent),
            r"no u-dma-buf device 'udmabuf-terntable', the kernel module u-dma-buf is not loaded:",
        ),
        (
            lambda tree: rmtree(tree.buffer),
            r"no u-dma-buf device 'udmabuf-terntable': load the design",
        ),
        (
            lambda tree: (
                rmtree(tree.buffer),
                tree.meminfo.write_text("CmaTotal: 262144 kB\nCmaFree: 200000 kB\n"),
            ),
            r"takes 512 MiB of contiguous memory, the kernel has a pool of 256 MiB; boot with"
            r" cma=768M, or lower size",
        ),
        (
            lambda tree: (
                rmtree(tree.buffer),
                tree.meminfo.write_text("CmaTotal: 1048576 kB\nCmaFree: 102400 kB\n"),
            ),
            r"takes 512 MiB of contiguous memory, 100 MiB of the kernel's 1024 are free; boot",
        ),
        (
            lambda tree: (tree.buffer / "phys_addr").write_text("0xfffff00000\n"),
            None,  # the last bytes of 40 bits
        ),
        (
            lambda tree: (tree.buffer / "phys_addr").write_text("0xfffff01000\n"),
            r"ends at 0x10000001000, the accelerator's addresses have 40 bits: lower dma-mask",
        ),
        (
            lambda tree: (tree.buffer / "phys_addr").write_text("0x70000010\n"),
            r"bytes at 0x70000010: whole pages",
        ),
        (lambda tree: (tree.buffer / "size").write_text("100\n"), r"has 0 bytes at"),
        (
            lambda tree: (tree.buffer / "dma_coherent").write_text("1\n"),
            r"marked dma-coherent, and the accelerator's ports go past the CPU's caches: remove",
        ),
        (lambda tree: (tree.buffer / "dma_coherent").unlink(), None),  # on older kernels
        (
            lambda tree: (tree.buffer / "sync_mode").write_text("5\n"),
            r"sync_mode 5, which maps it uncached: write 1 to .*sync_mode",
        ),
        (lambda tree: tree.device.unlink(), r"no file .*dev/uio3, though sysfs has its device"),
        (lambda tree: tree.memory.unlink(), r"no file .*dev/udmabuf-terntable, though sysfs"),
        (lambda tree: tree.device.write_bytes(b""), r"can't be mapped"),
        (
            lambda tree: (tree.device.unlink(), tree.device.mkdir()),
            r"dev/uio3 can't be opened, Is a directory: load the design",
        ),
    ],
)
def test_what_is_wrong_is_said(
    tree: Tree, change: Callable[[Tree], object], line: str | None
) -> None:
    change(tree)
    before = open_files()
    with contextlib.ExitStack() as stack:
        if line is not None:
            error = stack.enter_context(pytest.raises(UserError, match=line))
        # Everything but the accelerator is there in the files.
        machine = machine_of(tree)
        device = find_uio(machine, UIO.device)
        buffer = find_buffer(machine, UIO.buffer, UIO.buffer_bytes)
        transport = open_transport(machine, UIO, device, buffer)
        assert transport.memory_bytes == MEMORY_BYTES
        transport.write_register(ADDRESS["TOKENS"], 7)
        assert transport.read_register(ADDRESS["TOKENS"]) == 7
        transport.close()
        transport.close()
    if line is not None:
        assert "\n" not in str(error.value)
    assert open_files() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root has every permission")
@pytest.mark.parametrize("where", ["device", "memory", "sync_for_device"])
def test_no_permission(tree: Tree, where: str) -> None:
    file = tree.buffer / where if where.startswith("sync") else getattr(tree, where)
    file.chmod(0o400)
    with pytest.raises(
        UserError, match=rf"no permission for {file} \(.*:.*, -r--------\), you are"
    ):
        connect(load_board("kv260"), CONFIG, machine=machine_of(tree))


def test_no_permission_as_root(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an ordinary user's system calls would say."""
    kept = os.open

    def refuse(file: str | Path, flags: int, *rest: int) -> int:
        if Path(file).is_relative_to(tree.folder):
            raise PermissionError(13, "Permission denied", str(file))
        return kept(file, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setenv("LOGNAME", "ubuntu")
    with pytest.raises(
        UserError,
        match=rf"^no permission for {tree.device} \(.*:.*, -rw.*\), you are ubuntu: run terntable"
        r" with sudo, or give yourself access by a udev rule \(docs/boards.md\)$",
    ):
        connect(load_board("kv260"), CONFIG, machine=machine_of(tree))


def test_the_remedy_is_the_readmes() -> None:
    readme = (REPOSITORY / "host/flows/vivado/README.md.in").read_text()
    assert "sudo sh $name/load.sh" in readme
    assert "sudo sh terntable/load.sh" in RELOAD
    assert (
        'device-name = "{uio.buffer}"' in (REPOSITORY / "host/flows/vivado/overlay.py").read_text()
    )


# ---------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def kv260() -> Iterator[UioBoard]:
    """What stands for a KV260: its configuration, on the emulator."""
    board = UioBoard(load_config("kv260"), EmulatorAccelerator, memory_bytes=16 << 20)
    yield board
    board.close()


@pytest.fixture
def here(kv260: UioBoard, monkeypatch: pytest.MonkeyPatch) -> UioBoard:
    """It is this machine's."""
    kv260.accelerator.reset()
    kv260.accelerator.clock_hz = kv260.accelerator.config.clock_hz
    monkeypatch.setattr("terntable.host.boards.connect.Machine", lambda: kv260.machine)
    return kv260


def test_doctor_finds_a_board(here: UioBoard, cli: Callable[..., Outcome]) -> None:
    got = cli("doctor", "--board", "kv260", "--json")
    assert got.status == 0, got.out
    said = json.loads(got.out)
    assert (said["board"], said["config"], said["reached"]) == ("kv260", "kv260", True)
    assert [check["name"] for check in said["checks"]] == [
        "registers", "memory", "access", "design", "clock",
    ]  # fmt: skip
    assert "16 MiB at 0x10000000" in said["checks"][1]["found"]
    clock = re.fullmatch(r"([\d.]+) MHz, within [\d.e-]+, measured", said["checks"][-1]["found"])
    assert clock and 245 < float(clock[1]) < 255
    table = cli("doctor", "--board", "kv260")
    assert table.status == 0 and "granted" in table.out
    here.open().close()  # it is free again


def test_a_clock_that_is_not_the_configurations(
    here: UioBoard, cli: Callable[..., Outcome]
) -> None:
    here.accelerator.clock_hz = 100_000_000
    got = cli("doctor", "--board", "kv260", "--json")
    assert got.status == 1
    *good, bad = json.loads(got.out)["checks"]
    assert all(check["found"] for check in good) and bad["found"] is None
    line = r"the fabric's clock is (99|100).*; configuration 'kv260' is for 250 MHz: load the"
    assert re.match(line, bad["remedy"])
    run = cli("run", "--device", "board", "--board", "kv260", "--prompt", "x")
    assert (run.status, run.out) == (2, "")
    assert re.fullmatch(rf"terntable: {line}.*\n", run.err)


def test_another_design(here: UioBoard, cli: Callable[..., Outcome]) -> None:
    words = here.accelerator.words
    words["CONFIG_HASH"] = load_config("tiny").hash
    line = rf"has configuration {load_config('tiny').hash:08x} \(tiny\), 'kv260' is .*--config"
    got = cli("doctor", "--board", "kv260", "--json")
    assert got.status == 1
    assert re.search(line, json.loads(got.out)["checks"][-1]["remedy"])
    run = cli("run", "--device", "board", "--board", "kv260", "--prompt", "x")
    assert run.status == 2 and re.search(line, run.err)
    assert cli("doctor", "--board", "kv260", "--config", "tiny").status in (0, 1)
    words["MAGIC"] = 0
    assert "is no terntable" in cli("doctor", "--board", "kv260", "--json").out


def test_a_model_that_is_too_large_for_the_buffer(
    here: UioBoard, cli: Callable[..., Outcome]
) -> None:
    size = here.tree.buffer / "size"
    kept = size.read_text()
    size.write_text("65536\n")
    try:
        run = cli("run", "--device", "board", "--board", "kv260", "--prompt", "x")
    finally:
        size.write_text(kept)
    assert (run.status, run.out) == (2, "")
    assert re.fullmatch(
        r"terntable: the image has [\d,]+ bytes, the board's memory for it 65,536: take a smaller"
        r" model, or a shorter context; or enlarge u-dma-buf device 'udmabuf-terntable': size in"
        r" terntable.dtso, and, the kernel's pool of now 1024 MiB, by the kernel argument cma=\n",
        run.err,
    )


def test_run_on_the_command_line(here: UioBoard, cli: Callable[..., Outcome]) -> None:
    """The demo model, tokens as the emulator's."""
    options = ("--model", "tiny", "--prompt-ids", "7,14,21", "--max-tokens", "2", "--json")
    got = cli("run", "--device", "board", "--board", "kv260", *options)
    assert got.status == 0, got.err
    expected = cli("run", "--device", "emulator", "--config", "kv260", *options)
    said, emulated = json.loads(got.out), json.loads(expected.out)
    assert said["tokens"] == emulated["tokens"]
    assert (said["device"], said["device_detail"]) == ("board", "UIO device 'terntable'")
    assert said["clock_hz"] == 250_000_000


def test_doctor_without_a_board(cli: Callable[..., Outcome]) -> None:
    for options, line in (
        (("--board", "kv260"), "no UIO device 'terntable' in /sys/class/uio"),
        (("--board", "ulx3s", "--port", "/dev/nosuch"), "no serial port '/dev/nosuch'"),
        (("--board", "ulx3s", "--port", "/dev/null"), "/dev/null is no serial port"),
    ):
        got = cli("doctor", *options, "--json")
        assert got.status == 1
        (check,) = json.loads(got.out)["checks"]
        assert check["found"] is None and line in check["remedy"]
    for options, line in (
        (("--board", "nosuch"), "unknown board 'nosuch': choose from kv260, ulx3s"),
        (("--board", "ulx3s"), "ulx3s is at a serial port: name it with --port"),
        (("--board", "kv260", "--port", "x"), "leave --port away"),
        (("--port", "x"), "--port goes with --board"),
        (("--config", "tiny"), "--config goes with --board"),
    ):
        got = cli("doctor", *options)
        assert (got.status, got.out, got.err.count("\n")) == (2, "", 1)
        assert line in got.err
