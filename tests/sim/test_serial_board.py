"""The whole of a board in Verilator, behind a serial port: link, accelerator, memory controller,
SDRAM, and in front the host as it runs with a board."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices import open_device
from terntable.host.devices.base import DeviceError
from terntable.host.devices.board import BoardDevice
from terntable.host.link.port import SerialPort
from terntable.host.link.serial_transport import SerialTransport
from terntable.host.model import random_model
from terntable.host.session import Session
from terntable.hw.errors import UserError
from terntable.hw.soc.ulx3s import host_link
from terntable.sim import serial
from terntable.sim.harness import run_block
from terntable.sim.soc import SimulatedSoc, soc_verilog

from .test_soc import CONFIG, IDS, PART, SPEC

BAUD = 4_000_000
PATIENCE = 120.0
"""Seconds for an answer: a simulator's, on a busy machine."""

SIM = Path(serial.__file__).parent


class Simulator(threading.Thread):
    """Runs the board until `stop`; `failure` is what went wrong."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.port, self._stop_file = folder / "port", folder / "stop"
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            soc = SimulatedSoc(CONFIG, PART, 100_000_000, host_link(CONFIG, PART, BAUD))
            board = serial.SerialBoard(soc, CONFIG.clock_hz, BAUD)
            verilog, vlt = soc_verilog(board, CONFIG)
            run_block(
                verilog,
                top="soc",
                module=Path(__file__).parent / "serial_cocotb.py",
                vlt=vlt,
                extra_sources=[SIM / name for name in serial.SOURCES],
                params={"stop": str(self._stop_file)},
                timeout=1200,
            )
        except BaseException as e:
            self.failure = e

    def opened(self) -> SerialPort:
        """The board's serial port, when it is there."""
        while not self.port.exists():
            if self.failure is not None:
                raise self.failure
            time.sleep(0.1)
        return SerialPort(self.port.read_text(), BAUD)

    def stop(self) -> None:
        self._stop_file.touch()
        self.join()
        if self.failure is not None:
            raise self.failure


def test_tokens_of_the_whole_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host loads an image, prefills and decodes; every logit is the emulator's. A fault in the
    program names its unit, and the run after it is right again."""
    monkeypatch.setenv(serial.PORT_FILE, str(tmp_path / "port"))
    model = random_model(SPEC, seed=3)
    image = compile_model(model, CONFIG)
    with open_device("emulator", CONFIG, model=model) as emulator:
        expected = Session(emulator, image).generate(IDS, 3)
    simulator = Simulator(tmp_path)
    simulator.start()
    transport = SerialTransport(simulator.opened(), timeout=PATIENCE)
    assert transport.identity.clock_hz == CONFIG.clock_hz
    assert transport.identity.config_hash == CONFIG.hash
    assert transport.memory_bytes == PART.bytes
    with BoardDevice(CONFIG, transport, poll=1.0, patience=PATIENCE) as device:
        other = CONFIG.model_copy(update={"name": "other"})
        with pytest.raises(UserError, match="compile the model again"):
            device.load(compile_model(model, other))
        got = Session(device, image).generate(IDS, 3)
        assert got.tokens == expected.tokens
        for a, b in zip(got.logits, expected.logits, strict=True):
            assert np.array_equal(a.view(np.uint32), b.view(np.uint32))
        assert got.prefill is not None and got.prefill.cycles and got.prefill.unit_cycles["linear"]

        device.write(image.program, b"\xff" * 64)
        device.start(1, 0)
        with pytest.raises(DeviceError, match=r"BAD_COMMAND \(unit sequencer.*command 0\)"):
            device.wait()
        with pytest.raises(DeviceError, match=r"READ_FENCE at the board's memory"):
            transport.read_memory(PART.bytes, 4)
        # Loads the program's block again, and no other.
        assert Session(device, image).generate(IDS, 2).tokens == expected.tokens[:2]
    simulator.stop()
