"""Faults in a whole accelerator: each ends in a report, and the next run is right."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.base import DeviceError
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw import isa
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.sim.accelerator import design_of
from terntable.sim.dram import DramModel

pytestmark = pytest.mark.xdist_group("test-rtl")
CONFIG = load_config("test")
SPEC = ModelSpec(
    name="faults", layers=2, hidden=24, ffn=32, heads=2, kv_heads=1, head_dim=8, vocab=40,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Image:
    return compile_model(random_model(SPEC, seed=1), CONFIG)


def expected_logits(image: Image, ids: list[int]) -> bytes:
    with EmulatorDevice(CONFIG) as emulator:
        return Session(emulator, image).call(ids)[0].tobytes()


def test_stalls_do_not_change_a_bit(image: Image) -> None:
    ids = [3, 1, 4, 1, 5, 9]
    for seed in range(3):
        with SimDevice(CONFIG, stress_seed=seed) as device:
            assert Session(device, image).call(ids)[0].tobytes() == expected_logits(image, ids)


@pytest.mark.parametrize(
    ("region", "unit"), [("weights", "weights"), ("gains", "load"), ("program", "program"),
                         ("kv", "KV write"), ("logits", "logits write")],
)  # fmt: skip
def test_bus_errors_are_reported(image: Image, region: str, unit: str) -> None:
    where = image.regions[region]
    memory = DramModel(errors=((where.offset, where.size),))
    with SimDevice(CONFIG, dram=memory) as device:
        session = Session(device, image)
        with pytest.raises(DeviceError, match="RESPONSE") as error:
            session.call([1, 2, 3])
        assert error.value.unit == unit
        assert error.value.address is not None
        assert where.offset <= error.value.address < where.end


def patched(image: Image, index: int, command: bytes) -> bytes:
    """Offset-independent bytes of the program with one command replaced."""
    program = bytearray(image.region("program").tobytes())
    program[64 * index : 64 * index + 64] = command
    return bytes(program)


def test_a_command_that_is_none_and_recovery(image: Image) -> None:
    good = image.region("program").tobytes()
    with SimDevice(CONFIG) as device:
        session = Session(device, image)
        device.write(image.program, patched(image, 4, b"\xff" * 64))
        with pytest.raises(DeviceError, match="BAD_COMMAND") as error:
            session.call([1, 2, 3])
        assert error.value.address == image.program + 4 * 64
        assert error.value.command == 4
        device.write(image.program, good)
        session.reset()
        assert session.call([1, 2, 3])[0].tobytes() == expected_logits(image, [1, 2, 3])


def test_the_fence_stops_reads_and_writes(image: Image) -> None:
    commands = isa.decode_program(image.region("program").tobytes())
    loads = [i for i, c in enumerate(commands) if c.op is isa.Op.LOAD]
    quants = [i for i, c in enumerate(commands) if c.op is isa.Op.KV_QUANT]
    good = image.region("program").tobytes()
    with SimDevice(CONFIG) as device:
        session = Session(device, image)
        for index, word, value, code in (
            (loads[0], 1, image.size + 4096, "READ_FENCE"),
            (quants[0], 3, 0, "WRITE_FENCE"),  # the header's place: a constant region
        ):
            command = bytearray(good[64 * index : 64 * index + 64])
            command[4 * word : 4 * word + 4] = struct.pack("<I", value)
            device.write(image.program, patched(image, index, bytes(command)))
            before = device.read(0, 64)
            with pytest.raises(DeviceError, match=code):
                session.call([1, 2, 3])
            assert device.read(0, 64) == before
        device.write(image.program, good)
        session.reset()
        assert session.call([7, 8])[0].tobytes() == expected_logits(image, [7, 8])


def test_calls_that_cannot_be(image: Image) -> None:
    with SimDevice(CONFIG) as device:
        device.load(image)
        for tokens, position, chunk in ((0, 0, 4), (1, CONFIG.max_context, 4), (1, 0, 0)):
            device.start(tokens, position, chunk)
            with pytest.raises(DeviceError, match="BAD_CALL"):
                device.wait()
        session = Session(device, image)
        assert np.isfinite(session.call([1])[0]).all()


def test_another_configuration_is_refused() -> None:
    other = CONFIG.model_copy(update={"name": "other"})
    image = compile_model(random_model(SPEC, seed=1), other)
    with SimDevice(other, verilog=design_of(CONFIG)) as device:
        with pytest.raises(UserError) as error:
            device.load(image)
    assert f"{CONFIG.hash:08x}" in str(error.value)
    assert f"{other.hash:08x}" in str(error.value)
