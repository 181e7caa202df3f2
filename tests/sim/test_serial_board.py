"""The whole of a board in Verilator, behind a serial port: link, accelerator, memory controller,
SDRAM, and in front the host as it runs with a board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices import open_device
from terntable.host.devices.base import DeviceError
from terntable.host.devices.board import BoardDevice
from terntable.host.link.serial_transport import SerialTransport
from terntable.host.model import random_model
from terntable.host.session import Session
from terntable.hw.errors import UserError
from terntable.sim.serial_board import SimulatedBoard

from .test_soc import CONFIG, IDS, PART, SPEC

BAUD = 4_000_000
PATIENCE = 120.0
"""Seconds for an answer: a simulator's, on a busy machine."""


def test_tokens_of_the_whole_board(tmp_path: Path) -> None:
    """The host loads an image, prefills and decodes; every logit is the emulator's. A fault in the
    program names its unit, and the run after it is right again."""
    model = random_model(SPEC, seed=3)
    image = compile_model(model, CONFIG)
    with open_device("emulator", CONFIG, model=model) as emulator:
        expected = Session(emulator, image).generate(IDS, 3)
    simulator = SimulatedBoard(CONFIG, PART, BAUD, tmp_path)
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
