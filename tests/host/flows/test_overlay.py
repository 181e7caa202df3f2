"""The device-tree overlay: its syntax, what the kernel's bindings allow, and that it says the same
as the block design and the host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import device_tree
import pytest
from device_tree import Node, SourceError

from terntable.host.boards.board import load_board
from terntable.host.flows.vivado.overlay import afi_registers, hp_bits, overlay
from terntable.hw.config import AcceleratorConfig, load_config

KV260 = load_config("kv260")
BOARD = load_board("kv260")

LABELS = {"fpga_full", "amba", "gic", "zynqmp_clk", "zynqmp_reset"}
"""Labels of the board's own tree that overlays use."""

BINDINGS = {
    "xlnx,afi-fpga": {"config-afi", "resets"},
    "xlnx,fclk": {"#clock-cells", "clocks", "assigned-clocks", "assigned-clock-rates",
                  "clock-output-names"},
    "generic-uio": {"linux,uio-name", "reg", "interrupts", "interrupt-parent"},
    "ikwzm,u-dma-buf": {"device-name", "size", "dma-mask", "sync-mode", "dma-coherent",
                        "memory-region", "minor-number"},
}  # fmt: skip
"""Properties of the drivers' bindings."""

REGION = {"#address-cells", "#size-cells", "firmware-name", "resets"}


def text(config: AcceleratorConfig = KV260) -> str:
    assert BOARD.vivado is not None
    return overlay(config, BOARD.connect, BOARD.vivado, "terntable.bit.bin", "a note")


def check(source: str) -> dict[str, Node]:
    """Parse; every property is one of its binding, every reference has a label."""
    nodes = device_tree.parse(source)
    assert set(nodes) <= LABELS
    for region in nodes.values():
        assert set(region.properties) <= REGION, region.name
        sizes = region.cells("#address-cells") + region.cells("#size-cells")
        assert sizes == [2, 2]
        for node in region.nodes.values():
            assert set(node.properties) <= BINDINGS[node.text("compatible")] | {"compatible"}
            if "reg" in node.properties:
                cells = node.cells("reg")
                assert len(cells) == 4
                assert node.name.endswith(f"@{cells[0] << 32 | cells[1]:x}")
            else:
                assert "@" not in node.name
    for reference in re.findall(r"&(\w+)", re.sub(r"/\*.*?\*/", "", source, flags=re.S)):
        assert reference in LABELS, reference
    return nodes


def devices(nodes: dict[str, Node]) -> dict[str, Node]:
    return {node.text("compatible"): node for node in nodes["amba"].nodes.values()}


def test_it_says_what_board_and_host_say() -> None:
    nodes = check(text())
    region, found = nodes["fpga_full"], devices(nodes)
    assert set(found) == set(BINDINGS)
    assert region.text("firmware-name") == "terntable.bit.bin"
    uio, buffer = found["generic-uio"], found["ikwzm,u-dma-buf"]
    assert uio.text("linux,uio-name") == BOARD.connect.device
    assert uio.cells("reg") == [0, 0xA0000000, 0, 0x1000]
    assert uio.cells("interrupt-parent") == ["gic"]
    assert uio.cells("interrupts") == [0, 89, 4]
    assert buffer.text("device-name") == buffer.name == BOARD.connect.buffer
    high, low = buffer.cells("size")
    assert high << 32 | low == BOARD.connect.buffer_bytes
    assert buffer.cells("dma-mask") == [32]
    assert found["xlnx,fclk"].cells("assigned-clock-rates") == [100_000_000]


@pytest.mark.parametrize(
    ("bits", "ports", "value"), [(32, 1, 2), (64, 2, 1), (128, 4, 0), (256, 1, 0)]
)
def test_the_ports_have_the_width_of_the_bitstream(bits: int, ports: int, value: int) -> None:
    values = {"bus_bits": bits, "ports": ports, "attention_pipes": 1, "burst_beats": 16}
    config = AcceleratorConfig.model_validate(KV260.model_dump() | values)
    cells = devices(check(text(config)))["xlnx,afi-fpga"].cells("config-afi")
    pairs = dict(zip(cells[::2], cells[1::2], strict=True))
    # S_AXI_HPn_FPD is AFIFM n + 2, a register for reads and one for writes each.
    assert pairs == {4 + n: value for n in range(2 * ports)} | {14: 0}
    assert pairs == dict(afi_registers(config))
    assert hp_bits(config) == min(bits, 128)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("firmware-name", "firmware_name"),
        ("config-afi", "config-afj"),
        ("linux,uio-name", "linux,uioname"),
        ("interrupt-parent", "interupt-parent"),
        ("device-name", "devicename"),
        ("#clock-cells", "#clock-cell"),
        ("&zynqmp_clk", "&zynqmp_clock"),
        ("&amba {", "&ambra {"),
        ("generic-uio", "generic-uoi"),
        ("@a0000000", "@a0001000"),
        ("<0x0 0xa0000000 0x0 0x1000>", "<0xa0000000 0x1000>"),
        ("<0 89 4>", "<0 89 4"),
        ("/plugin/;", "/plugin/"),
        ("};\n", "}\n"),
        ('"fabric_clk";', '"fabric_clk"'),
        ("<32>", "<32u>"),
    ],
)
def test_planted_mistakes_are_found(right: str, wrong: str) -> None:
    assert right in text()
    with pytest.raises((AssertionError, SourceError, KeyError)):
        check(text().replace(right, wrong, 1))


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")
def test_dtc_compiles_it(tmp_path: Path) -> None:
    source = tmp_path / "terntable.dtso"
    source.write_text(text())
    command = ["dtc", "-@", "-I", "dts", "-O", "dtb", "-o", str(tmp_path / "o.dtbo"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
