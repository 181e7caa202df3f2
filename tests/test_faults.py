"""Faults in a whole accelerator: each ends in a report that names unit, address and command, and
the next run is right."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.base import DeviceError, check_memory
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw import isa, regs
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.isa import Op, Unit
from terntable.sim.accelerator import design_of
from terntable.sim.dram import DramModel, Fault

pytestmark = pytest.mark.xdist_group("test-rtl")
CONFIG = load_config("test")
SPEC = ModelSpec(
    name="faults", layers=2, hidden=24, ffn=32, heads=2, kv_heads=1, head_dim=8, vocab=40,
    context=64, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
IDS = [3, 1, 4, 1, 5, 9]
STUCK = 3000
"""Cycles after which the watchdog ends a call: no memory here takes as long."""


@pytest.fixture(scope="module")
def image() -> Image:
    return compile_model(random_model(SPEC, seed=1), CONFIG)


@pytest.fixture(scope="module")
def commands(image: Image) -> list[isa.Command]:
    return isa.decode_program(image.region("program").tobytes())


@pytest.fixture(scope="module")
def device() -> Iterator[SimDevice]:
    with SimDevice(CONFIG, stuck=STUCK) as device:
        yield device


@pytest.fixture
def session(device: SimDevice, image: Image) -> Iterator[Session]:
    """A session whose fault must be over when the test ends: what the program was is there again,
    and the next run is right."""
    session = Session(device, image)
    device.reset(DramModel())
    yield session
    device.write(image.program, image.region("program").tobytes())
    assert_right(session)


def expected_logits(image: Image, ids: list[int]) -> bytes:
    with EmulatorDevice(CONFIG) as emulator:
        return Session(emulator, image).call(ids)[0].tobytes()


def assert_right(session: Session) -> None:
    session.reset()
    assert session.call(IDS)[0].tobytes() == expected_logits(session.image, IDS)


def index_of(commands: list[isa.Command], op: Op, number: int = 0) -> int:
    return [i for i, c in enumerate(commands) if c.op is op][number]


def patch(device: SimDevice | EmulatorDevice, image: Image, index: int, command: bytes) -> int:
    """Replace a command of the program; its offset."""
    at = image.program + isa.COMMAND_BYTES * index
    device.write(at, command)
    return at


def changed(command: isa.Command, **fields: int) -> bytes:
    return isa.encode(command.op, command.wait, **(command.values | fields))


def test_stalls_do_not_change_a_bit(image: Image) -> None:
    for seed in range(3):
        with SimDevice(CONFIG, stress_seed=seed) as device:
            assert_right(Session(device, image))


# ------------------------------------------------------------ the bus


@pytest.mark.parametrize(
    ("region", "kind", "unit", "op", "number"),
    [
        ("weights", "r", "weights", Op.FETCH, 0),
        ("head", "r", "weights", Op.FETCH, 1),
        ("rope", "r", "load", Op.LOAD, None),
        ("gains", "r", "load", Op.LOAD, None),
        ("input", "r", "load", Op.LOAD, 0),
        ("head_scales", "r", "load", Op.LOAD, -1),
        ("program", "r", "program", None, None),
        ("kv", "r", "KV", Op.ATTENTION, 0),
        ("kv", "w", "KV write", Op.KV_QUANT, 0),
        ("logits", "w", "logits write", Op.LINEAR, -1),
    ],
)
@pytest.mark.parametrize("fault", ["errors", "lost"])
def test_answers_of_the_bus(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command],
    region: str, kind: str, unit: str, op: Op | None, number: int | None, fault: str,
) -> None:  # fmt: skip
    """One error response, and one response that never comes: the watchdog ends that call."""
    where = image.regions[region]
    device.reset(DramModel(**{fault: (Fault(where.offset, where.size, kind, 1),)}))
    code = "NO_PROGRESS"
    if fault == "errors":
        code = "READ_RESPONSE" if kind == "r" else "WRITE_RESPONSE"
    with pytest.raises(DeviceError, match=f"^{code} ") as error:
        session.call(IDS)
    e = error.value
    assert e.unit == unit
    assert e.address is not None and where.offset <= e.address < where.end
    assert e.command is not None
    if op is None:
        assert e.command == (e.address - image.program) // isa.COMMAND_BYTES
    else:
        assert commands[e.command].op is op
        if number is not None:
            assert e.command == index_of(commands, op, number)
    if fault == "lost":
        # The soft reset waits for the answer, and so does a call; only the watchdog ends it.
        device.start(1, 0)
        with pytest.raises(DeviceError, match=r"^NO_PROGRESS "):
            device.wait()
        device.reset(DramModel())


def test_a_bus_that_answers_late_is_no_fault(
    device: SimDevice, session: Session, image: Image
) -> None:
    late = DramModel(latency=0.8 * STUCK / CONFIG.clock_hz, write_latency=5e-6)
    device.reset(late)
    assert session.call([1])[0].tobytes() == expected_logits(image, [1])


@pytest.mark.parametrize(
    ("op", "field", "value", "code", "unit"),
    [
        (Op.FETCH, "address", "end", "READ_FENCE", "weights"),
        (Op.LOAD, "address", "end", "READ_FENCE", "load"),
        (Op.LOAD, "address", 1 << 31, "READ_FENCE", "load"),
        (Op.LOAD, "address", 66, "READ_FENCE", "load"),  # not aligned
        (Op.ATTENTION, "address", "end", "READ_FENCE", "KV"),
        (Op.KV_QUANT, "address", "end", "WRITE_FENCE", "KV write"),
        (Op.KV_QUANT, "address", 0, "WRITE_FENCE", "KV write"),  # constant regions
    ],
)
def test_the_fence(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command],
    op: Op, field: str, value: int | str, code: str, unit: str,
) -> None:  # fmt: skip
    index = index_of(commands, op)
    address = image.size if value == "end" else int(value)
    patch(device, image, index, changed(commands[index], **{field: address}))
    before = device.read(0, image.write_base)
    with pytest.raises(DeviceError, match=f"^{code} ") as error:
        session.call(IDS)
    assert (error.value.unit, error.value.command) == (unit, index)
    assert error.value.address is not None and error.value.address >= address
    assert device.read(0, image.write_base) == before


def test_the_fence_stops_logits(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command]
) -> None:
    index = index_of(commands, Op.LINEAR, -1)
    patch(device, image, index, changed(commands[index], address=64))
    before = device.read(0, image.write_base)
    with pytest.raises(DeviceError, match=r"^WRITE_FENCE .*logits write, address 0x40") as error:
        session.call(IDS)
    assert error.value.command == index
    assert device.read(0, image.write_base) == before


# ------------------------------------------------------------ the program


def test_a_command_that_is_none(device: SimDevice, session: Session, image: Image) -> None:
    for index, command in ((0, bytes(64)), (4, b"\xff" * 64), (11, b"\x03" + bytes(63))):
        good = device.read(image.program + 64 * index, 64)
        at = patch(device, image, index, command)
        with pytest.raises(DeviceError, match=r"^BAD_COMMAND ") as error:
            session.call(IDS)
        e = error.value
        assert (e.unit, e.address, e.command) == ("sequencer", at, index)
        device.write(at, good)


@pytest.mark.parametrize("seed", range(2))
def test_a_program_that_ends_early(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command], seed: int
) -> None:
    """END in the place of any other command. Where weights or scales are left over that nobody
    takes, their unit stands still; else END itself is refused. The emulator refuses it all."""
    rng = random.Random(seed)
    chunk = index_of(commands, Op.CHUNK)
    places = {0, chunk, *range(chunk + 1, len(commands) - 1)} if seed == 0 else set()
    places |= set(rng.sample(range(len(commands) - 1), 5))
    for index in sorted(places):
        at = patch(device, image, index, isa.encode(Op.END))
        with pytest.raises(DeviceError, match=r"^(EARLY_END|NO_PROGRESS) ") as error:
            session.call(IDS)
        e = error.value
        if "EARLY_END" in str(e):
            assert (e.unit, e.address, e.command) == ("sequencer", at, index)
        else:
            assert e.unit in ("FETCH", "LOAD") and commands[e.command or 0].op.name == e.unit
        with EmulatorDevice(CONFIG) as emulator:
            emulator.load(image)
            patch(emulator, image, index, isa.encode(Op.END))
            emulator.start(1, 0)
            with pytest.raises(DeviceError, match="bad program"):
                emulator.wait()
        device.write(at, image.region("program").tobytes()[64 * index : 64 * index + 64])


MOST = {
    "hidden": CONFIG.max_hidden // CONFIG.lanes,
    "row": CONFIG.max_row // CONFIG.lanes,
    "head": CONFIG.max_head_dim // CONFIG.lanes,
}


@pytest.mark.parametrize(
    ("op", "number", "changes"),
    [
        (Op.FETCH, 0, {"words": 1 << 31}),
        (Op.LOAD, 0, {"ew": MOST["hidden"] + 1}),
        (Op.LOAD, 0, {"dest": isa.Dest.ROPE, "ew": MOST["head"] + 1}),
        (Op.LOAD, 1, {"ew": 0xFFFF}),
        (Op.LOAD, -1, {"count": 1 << 24}),
        (Op.NORM_QUANT, 0, {"ew": MOST["hidden"] + 1}),
        (Op.NORM_QUANT, -1, {"source": isa.Source.ROW, "ew": MOST["row"] + 1}),
        (Op.NORM_QUANT, 2, {"source": 3}),
        (Op.KV_QUANT, 0, {"format": 3}),
        (Op.KV_QUANT, 0, {"heads_per_kv": CONFIG.max_heads + 1, "head_ew": 1}),
        (Op.KV_QUANT, 1, {"head_ew": MOST["head"] + 1}),
        (Op.KV_QUANT, 0, {"heads_per_kv": 8, "kv_heads": 1, "head_ew": 16}),
        (Op.KV_QUANT, 0, {"record_bytes": 36}),
        (Op.LINEAR, 0, {"k_tiles": CONFIG.k_tiles(CONFIG.max_row) + 1}),
        (Op.LINEAR, 1, {"out_rows": CONFIG.max_hidden + 2}),
        (Op.LINEAR, 0, {"first_row": CONFIG.max_row}),
        (Op.LINEAR, 2, {"tile_words": CONFIG.tile_rows // CONFIG.rows + 1}),
        (Op.LINEAR, -1, {"out_rows": 7}),
        (Op.LINEAR, -1, {"tiles": 0}),
        (Op.ATTENTION, 1, {"format": 3}),
        (Op.ATTENTION, 0, {"heads_per_kv": CONFIG.max_heads, "kv_heads": 2}),
        (Op.ATTENTION, 1, {"head_dims": CONFIG.max_head_dim + CONFIG.attention_dims}),
        (Op.ATTENTION, 0, {"heads_per_kv": 8, "head_dims": 32}),
    ],
)  # fmt: skip
def test_dimensions_beyond_the_maxima(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command],
    op: Op, number: int, changes: dict[str, int],
) -> None:  # fmt: skip
    """Gateware and emulator refuse the command in the same words."""
    index = index_of(commands, op, number)
    at = patch(device, image, index, changed(commands[index], **changes))
    with pytest.raises(DeviceError, match=r"^BAD_DIMENSION: ") as here:
        session.call(IDS)
    with EmulatorDevice(CONFIG) as emulator:
        emulator.load(image)
        patch(emulator, image, index, changed(commands[index], **changes))
        emulator.start(1, 0)
        with pytest.raises(DeviceError, match=r"^bad dimension: ") as there:
            emulator.wait()
    unit = isa.UNIT_OF[op].name
    for e in (here.value, there.value):
        assert (e.unit, e.address, e.command) == (unit, at, index)
    assert str(here.value).split(": ", 1)[1] == str(there.value).split(": ", 1)[1]


def test_calls_that_cannot_be(device: SimDevice, session: Session) -> None:
    for tokens, position, chunk in ((0, 0, 4), (1, CONFIG.max_context, 4), (1, 0, 0)):
        device.start(tokens, position, chunk)
        with pytest.raises(DeviceError, match=r"^BAD_CALL ") as error:
            device.wait()
        assert error.value.unit == "sequencer"
        assert error.value.address == position + tokens


# ------------------------------------------------------------ units that never answer


@pytest.mark.parametrize(
    ("op", "number", "changes", "unit"),
    [
        # Fewer words than the LINEARs take; more, which fill the ring.
        (Op.FETCH, 0, {"words": 10}, Unit.LINEAR),
        (Op.FETCH, 1, {"words": 1100, "beats": 400}, Unit.FETCH),
        # Fewer scales than the head takes, and more.
        (Op.LOAD, -1, {"count": SPEC.vocab - 1}, Unit.LINEAR),
        (Op.LOAD, -1, {"count": SPEC.vocab + 40}, Unit.LOAD),
    ],
)
def test_a_unit_that_never_ends(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command],
    op: Op, number: int, changes: dict[str, int], unit: Unit,
) -> None:  # fmt: skip
    index = index_of(commands, op, number)
    patch(device, image, index, changed(commands[index], **changes))
    with pytest.raises(DeviceError, match=r"^NO_PROGRESS ") as error:
        session.call(IDS)
    e = error.value
    assert e.unit == unit.name
    assert e.command is not None and isa.UNIT_OF[commands[e.command].op] is unit
    assert e.address == image.program + isa.COMMAND_BYTES * e.command


@pytest.mark.parametrize("more", [1, 2])
def test_scales_that_are_left_over(
    device: SimDevice, session: Session, image: Image, commands: list[isa.Command], more: int
) -> None:
    """So few that the stream to the LM head holds them."""
    index, end = index_of(commands, Op.LOAD, -1), len(commands) - 1
    patch(device, image, index, changed(commands[index], count=SPEC.vocab + more))
    with pytest.raises(DeviceError, match=r"^EARLY_END ") as error:
        session.call(IDS)
    at = image.program + isa.COMMAND_BYTES * end
    assert (error.value.unit, error.value.address, error.value.command) == ("sequencer", at, end)
    with EmulatorDevice(CONFIG) as emulator:
        emulator.load(image)
        patch(emulator, image, index, changed(commands[index], count=SPEC.vocab + more))
        emulator.start(1, 0)
        with pytest.raises(DeviceError, match=f"bad program: {more} scales are left over"):
            emulator.wait()


def test_without_the_watchdog_the_simulator_tells(image: Image) -> None:
    with SimDevice(CONFIG, stuck=0) as device:
        session = Session(device, image)
        commands = isa.decode_program(image.region("program").tobytes())
        patch(device, image, 0, changed(commands[0], words=10))
        with pytest.raises(DeviceError, match=r"^nothing moved for [\d,]+ cycles; busy: LINEAR"):
            session.call(IDS)
        device.reset()
        device.write(image.program, image.region("program").tobytes())
        assert_right(session)


# ------------------------------------------------------------ doorbells and resets


def test_a_doorbell_while_busy_disturbs_nothing(
    device: SimDevice, session: Session, image: Image
) -> None:
    rows = image.embed(IDS).tobytes()
    device.write(image.regions["input"].offset, rows)
    device.start(len(IDS), 0)
    device.run(500)
    simulation = device._running
    for _ in range(3):
        simulation.write_registers([(regs.ADDRESS["CONTROL"], 1)])
        names = ("STATUS", "ERROR_CODE", "ERROR_UNIT", "ERROR_COMMAND", "ERROR_ADDRESS")
        values = simulation.read_registers([regs.ADDRESS[n] for n in names])
        status, code, unit, command, address = values
        assert status == regs.Status.BUSY
        assert code == regs.Error.START_WHILE_BUSY
        assert regs.ERROR_UNITS[unit] == "sequencer"
        assert abs(address - image.program - isa.COMMAND_BYTES * command) <= isa.COMMAND_BYTES
        device.run(200)
    device.wait()
    raw = device.read(image.regions["logits"].offset, 4 * SPEC.vocab)
    assert raw == expected_logits(image, IDS)


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("seed", range(2))
def test_a_reset_in_the_middle_of_a_run(
    device: SimDevice, session: Session, image: Image, seed: int, hard: bool
) -> None:
    """At random moments, with stalls: nothing of the call that was given up is seen again."""
    rng = random.Random(seed)
    device.reset(DramModel(stress_seed=seed))
    length = 16_000
    for _ in range(10):
        session.reset()
        device.write(image.regions["input"].offset, image.embed([7] * 9).tobytes())
        device.start(9, 0)
        device.run(rng.randrange(length))
        if hard:
            device.reset()
        else:
            device.abort()
        assert_right(session)


# ------------------------------------------------------------ images


@pytest.mark.parametrize("region", ["program", "rope", "gains", "head_scales", "weights", "head"])
def test_a_corrupted_region_is_named(
    device: SimDevice, session: Session, image: Image, region: str
) -> None:
    """Before it is loaded, and in the memory."""
    where = image.regions[region]
    data = np.array(image.data)
    data[where.offset + where.size // 2] ^= 0x10
    damaged = Image(image.config, image.spec, data, image.regions, image.embedding, image.context)
    for other in (SimDevice, EmulatorDevice):
        with other(CONFIG) as fresh:
            with pytest.raises(UserError, match=f"region '{region}' is damaged") as refused:
                fresh.load(damaged)
            assert "\n" not in str(refused.value)
    check_memory(device, image)
    byte = device.read(where.offset + 3, 1)
    device.write(where.offset + 3, bytes([byte[0] ^ 1]))
    with pytest.raises(DeviceError, match=f"region '{region}' is damaged") as error:
        check_memory(device, image)
    assert error.value.address == where.offset
    device.write(where.offset + 3, byte)
    check_memory(device, image)


def test_another_configuration_is_refused() -> None:
    other = CONFIG.model_copy(update={"name": "other"})
    image = compile_model(random_model(SPEC, seed=1), other)
    with SimDevice(other, verilog=design_of(CONFIG)) as device:
        with pytest.raises(UserError) as error:
            device.load(image)
    assert f"{CONFIG.hash:08x}" in str(error.value)
    assert f"{other.hash:08x}" in str(error.value)
