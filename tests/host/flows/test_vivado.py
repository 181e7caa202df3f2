"""The Tcl scripts of a project run in a Tcl interpreter against a model of Vivado, which refuses
commands, options, properties and pins that it doesn't know."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from tcl import interpreter, run_tcl

from terntable.host.boards.board import load_board
from terntable.host.flows.vivado.project import AS_THEY_ARE, NAME, SCRIPTS, settings
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.ip_wrapper import ip_wrapper

pytestmark = pytest.mark.skipif(interpreter() is None, reason="no tclsh and no tkinter")

BOARD = load_board("kv260")
MODEL = Path(__file__).parent / "vivado_model"
RUN = "".join(f"source {MODEL}/{name}.tcl\n" for name in ("commands", "project", "design"))
SOURCES = Path(__file__).parents[3] / "host" / "flows" / "vivado"


def configuration(**values: object) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(load_config("test").model_dump() | values)


FOUR = configuration(ports=4, bus_bits=128)


def project(folder: Path, config: AcceleratorConfig = FOUR) -> Path:
    """What the scripts read; the accelerator itself is empty."""
    folder.mkdir()
    (folder / "settings.tcl").write_text(settings(BOARD, config))
    (folder / "terntable.v").write_text("module terntable ();\nendmodule\n")
    wrapper = ip_wrapper(config, "terntable_kv260", "terntable", "a note")
    (folder / "terntable_kv260.v").write_text(wrapper)
    for name in AS_THEY_ARE:
        shutil.copy(SOURCES / name, folder)
    (folder / "shell.json").write_text("{}")
    (folder / "run.tcl").write_text(f"{RUN}source {folder}/build.tcl\n")
    return folder


def run(folder: Path, **situation: str) -> subprocess.CompletedProcess[str]:
    return run_tcl(folder / "run.tcl", **{f"STUB_{k}": v for k, v in situation.items()})


class Design:
    """The block design that a run has left: cells, nets, links, addresses."""

    def __init__(self, folder: Path) -> None:
        self.cells: dict[str, str] = {}
        self.properties: dict[tuple[str, str], str] = {}
        self.links: dict[str, str] = {}
        self.addresses: dict[str, dict[str, tuple[int, int]]] = {}
        nets: dict[str, set[str]] = {}
        for line in (folder / "vivado" / "project" / f"{NAME}.bd").read_text().splitlines():
            kind, *words = shlex.split(line)
            match kind, words:
                case "cell", [name, vlnv]:
                    self.cells[name] = vlnv
                case "property", [name, key, value]:
                    self.properties[name, key] = value
                case "net", [number, pin]:
                    nets.setdefault(number, set()).add(pin)
                case "link", [one, other]:
                    self.links[one] = other
                case "address", [space, segment, offset, size]:
                    self.addresses.setdefault(space, {})[segment] = (int(offset), int(size))
        self.nets = list(nets.values())

    def net(self, pin: str) -> set[str]:
        return next(net for net in self.nets if pin in net)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path / "project")


def test_the_whole_flow(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout
    design = Design(folder)
    # The newest of each IP: 3.10 comes after 3.5.
    assert design.cells["ps"] == "xilinx.com:ip:zynq_ultra_ps_e:3.10"
    assert set(design.cells) == {"ps", "clock", "reset", "control", "accelerator"}
    for port in range(4):
        assert design.links[f"accelerator/m_axi_hp{port}"] == f"ps/S_AXI_HP{port}_FPD"
        assert design.properties["ps", f"CONFIG.PSU__SAXIGP{port + 2}__DATA_WIDTH"] == "128"
        space = design.addresses[f"accelerator/m_axi_hp{port}"]
        assert {segment.rsplit("_", 1)[1]: place for segment, place in space.items()} == {
            "LOW": (0, 1 << 31), "HIGH": (8 << 32, 1 << 31),
        }  # fmt: skip
    assert design.addresses["ps/Data"] == {"accelerator/s_axi_control/reg0": (0xA0000000, 4096)}
    assert design.net("accelerator/interrupt") == {"accelerator/interrupt", "ps/pl_ps_irq0"}
    # One clock for everything in the fabric, and reset from the block that waits for it.
    assert design.net("clock/clk_out1") >= {
        "accelerator/aclk",
        "control/aclk",
        "ps/saxihp3_fpd_aclk",
    }
    assert design.net("accelerator/aresetn") >= {"reset/peripheral_aresetn", "control/aresetn"}
    assert design.properties["clock", "CONFIG.CLKOUT1_REQUESTED_OUT_FREQ"] == "100.000000"
    made = {p.name for p in (folder / "firmware").iterdir()}
    assert made == {"load.sh", "shell.json", "terntable.bit.bin"}
    assert (folder / "vivado" / "terntable.xsa").exists()
    assert len(list((folder / "vivado" / "reports").iterdir())) == 3


def test_the_configuration_of_the_board(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", load_config(BOARD.config))
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "the accelerator's clock is 249997500 Hz" in done.stdout
    design = Design(folder)
    assert design.properties["clock", "CONFIG.CLKOUT1_REQUESTED_OUT_FREQ"] == "250.000000"
    assert design.links["accelerator/m_axi_hp3"] == "ps/S_AXI_HP3_FPD"


def test_a_second_run_begins_anew(folder: Path) -> None:
    assert run(folder).returncode == 0
    assert run(folder).returncode == 0


def test_ports_wider_than_the_processing_system(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", configuration(ports=2, bus_bits=256))
    done = run(folder)
    assert done.returncode == 0, done.stderr
    design = Design(folder)
    for port in range(2):
        assert design.links[f"accelerator/m_axi_hp{port}"] == f"memory{port}/S00_AXI"
        assert design.links[f"memory{port}/M00_AXI"] == f"ps/S_AXI_HP{port}_FPD"
        assert f"memory{port}/aclk" in design.net("clock/clk_out1")
    assert design.properties["ps", "CONFIG.PSU__USE__S_AXI_GP4"] == "0"
    assert design.properties["ps", "CONFIG.PSU__SAXIGP2__DATA_WIDTH"] == "128"


def test_without_board_files(folder: Path) -> None:
    done = run(folder, BOARDS="")
    assert done.returncode == 0, done.stderr
    assert "WARNING: no board files" in done.stdout
    assert list(Design(folder).addresses["accelerator/m_axi_hp0"]) == ["ps/SAXIGP2/HP0_DDR_LOW"]


def test_a_packager_that_infers_no_memory_map(folder: Path) -> None:
    done = run(folder, PACKAGER="bare")
    assert done.returncode == 0, done.stderr
    assert Design(folder).addresses["ps/Data"] == {
        "accelerator/s_axi_control/reg0": (0xA0000000, 4096)
    }


@pytest.mark.parametrize(
    ("situation", "words"),
    [
        ({"SLACK": "-0.2 0.01"}, "timing is not met: setup slack -0.2 ns at 100.000000 MHz"),
        ({"SLACK": "0.1 -0.03"}, "timing is not met: hold slack -0.03 ns"),
        ({"RUN": "failed"}, "implementation ended at 60%: route_design ERROR"),
        ({"IPS": "xilinx.com:ip:clk_wiz:6.0"}, "this Vivado has no IP xilinx.com:ip:zynq_ultra"),
    ],
)
def test_what_goes_wrong_is_said(folder: Path, situation: dict[str, str], words: str) -> None:
    done = run(folder, **situation)
    assert done.returncode == 1
    assert words in done.stderr
    assert not list(folder.glob("firmware/*"))


def test_pins_of_an_interface_that_is_not_there(folder: Path) -> None:
    wrapper = folder / "terntable_kv260.v"
    wrapper.write_text(wrapper.read_text().replace(" m_axi_hp3", " m_axi_hp4"))
    done = run(folder)
    assert done.returncode == 1
    assert "interface m_axi_hp3 was not inferred" in done.stderr


WORDS = re.compile(
    r"\b(?:ipx::)?[a-z]+_[a-z_]+\b(?= [^=]| *\])"  # commands
    r"|(?<=\s)-[a-z_]{3,}\b"  # options
    r"|\b(?:CONFIG|STATS|BITSTREAM)\.\w+"  # properties of IP, runs, designs
    r"|(?<=set_property )(?!-)[a-z]\w+|(?<=get_property )[A-Z]\w+"  # other properties
    r"|\b(?:ps|clock|reset|control|accelerator|memory\$n)/\w+"  # pins and interfaces
    r"|\bxilinx\.com:[\w:]+"
)
"""Commands, options, properties, pins, IP: what Vivado knows and Tcl does not."""


def planted() -> list[tuple[str, int, int]]:
    """Where these words are in the scripts, outside of comments and texts."""
    found = []
    for name in (*SCRIPTS, f"{NAME}.xdc"):
        script = re.sub(
            r'^ *#[^\n]*|"[^"]*"',
            lambda m: " " * len(m[0]),
            (SOURCES / name).read_text(),
            flags=re.M,
        )
        found += [(name, match.start(), match.end()) for match in WORDS.finditer(script)]
    return found


def test_every_planted_misspelling_is_found(tmp_path: Path) -> None:
    """A letter doubled in each word in turn: one of these projects ends in an error."""
    situations = [
        (project(tmp_path / "four"), {}),
        (project(tmp_path / "bare"), {"PACKAGER": "bare"}),
        (project(tmp_path / "wide", configuration(ports=2, bus_bits=256)), {}),
    ]
    places = planted()
    assert len(places) > 200
    passed = []
    for name, start, end in places:
        right = (SOURCES / name).read_text()
        wrong = right[:end] + right[end - 1] + right[end:]
        for folder, situation in situations:
            (folder / name).write_text(wrong)
            failed = run(folder, **situation).returncode == 1
            (folder / name).write_text(right)
            if failed:
                break
        else:
            passed.append(f"{name}: {right[start:end]}")
    assert passed == []
