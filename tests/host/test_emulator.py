"""Compiled models on the emulator: chunking, shapes, faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.base import DeviceError
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.emulator.attention import KvCodes, attend
from terntable.host.emulator.matrix import Matrix
from terntable.host.image import Image
from terntable.host.model import Layer, ModelSpec, TernaryLinear, random_model
from terntable.hw import isa
from terntable.hw.attention.reference import reference as unit_reference
from terntable.hw.config import KV_BLOCK, AcceleratorConfig, load_config
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat, Op, Unit

TEST = load_config("test")
ONE_LANE = AcceleratorConfig.model_validate(TEST.model_dump() | {"tokens": 1, "bus_bits": 64})
ODD = AcceleratorConfig.model_validate(
    TEST.model_dump()
    | {
        "group": 4,
        "tables": 3,
        "rows": 6,
        "tile_rows": 12,
        "ports": 4,
        "bus_bits": 128,
        "attention_dims": 8,
        "chunk": 5,
        "max_row": 160,
    }
)
SHAPES = {
    "plain": {},
    "no-sub-norms": {"attn_sub_norm": False, "ffn_sub_norm": False, "tied": False},
    "attn-sub-norm": {"ffn_sub_norm": False, "activation": "silu"},
    "ffn-sub-norm": {"attn_sub_norm": False, "activation": "silu", "layers": 1},
    "odd": {"hidden": 23, "ffn": 29, "head_dim": 10, "heads": 3, "kv_heads": 3, "vocab": 31},
    "one-head": {"heads": 1, "kv_heads": 1, "head_dim": 2, "hidden": 2, "ffn": 1, "vocab": 2},
    "shared": {"heads": 6, "kv_heads": 1, "layers": 3, "rope_theta": 5e5},
}
Make = Callable[..., ModelSpec]


CASES = [(shape, TEST, 36, KvFormat.INT16) for shape in SHAPES]
CASES += [
    ("plain", ONE_LANE, 36, KvFormat.INT8),
    ("odd", ODD, 36, KvFormat.INT4),
    ("shared", ODD, 70, KvFormat.INT8),
]


@pytest.mark.parametrize(("shape", "config", "length", "kv"), CASES)
def test_chunking_changes_no_bit(
    shape: str, config: AcceleratorConfig, length: int, kv: KvFormat, make_spec: Make, make_runner
) -> None:
    spec = make_spec(**SHAPES[shape])
    image = compile_model(random_model(spec, 5), config, kv=kv)
    tokens = np.random.default_rng(6).integers(0, spec.vocab, length).tolist()
    whole = make_runner(image)
    expected = whole.call(tokens, 0)
    assert np.isfinite(expected).all() and expected.std() > 0
    for chunk in (2, 3):
        other = make_runner(image)
        assert other.call(tokens, 0, chunk).tobytes() == expected.tobytes()
        assert other.cache() == whole.cache()
    stepped = make_runner(image)
    for position, token in enumerate(tokens):
        last = stepped.call([token], position)
    assert last.tobytes() == expected.tobytes()
    assert stepped.cache() == whole.cache()
    turns = make_runner(image)
    turns.call(tokens[:31], 0)
    turns.call(tokens[31:32], 31)
    assert turns.call(tokens[32:], 32).tobytes() == expected.tobytes()


def test_scales_of_shards_are_the_matrices_scales(make_spec: Make, make_runner) -> None:
    """A matrix whose blocks share a scale is one with that scale, however many LINEARs run it."""
    spec = make_spec(heads=6, kv_heads=3, ffn=36, hidden=24)
    model, tokens = random_model(spec, 4), list(range(20))
    expected = make_runner(compile_model(model, TEST)).call(tokens, 0)

    def split(layer: Layer) -> Layer:
        many = {
            name: TernaryLinear(linear.trits, np.repeat(linear.scale, 3))
            for name, linear in layer.linears.items()
        }
        return Layer(many, layer.gains)

    image = compile_model(replace(model, layer=lambda n: split(model.layer(n))), TEST)
    assert make_runner(image).call(tokens, 0).tobytes() == expected.tobytes()
    program = isa.decode_program(image.region("program").tobytes())
    assert sum(c.op is Op.LINEAR for c in program) == 12 * spec.layers + 1


def test_scales_of_columns_are_a_gain(make_spec: Make, make_runner) -> None:
    """Folding scales into a sub-norm's gain by hand gives the same logits."""
    spec = make_spec()
    model, tokens = random_model(spec, 8), list(range(20))
    columns = {"o": np.array([0.5, 3], np.float32), "down": np.array([2, 0.25, 1], np.float32)}

    def scaled(layer: Layer) -> Layer:
        linears = dict(layer.linears)
        for name, scale in columns.items():
            linears[name] = replace(linears[name], column_scale=scale)
        return Layer(linears, layer.gains)

    def folded(layer: Layer) -> Layer:
        gains = dict(layer.gains)
        for name, norm in (("o", "attn_sub_norm"), ("down", "ffn_sub_norm")):
            each = layer.gains[norm].size // columns[name].size
            gains[norm] = layer.gains[norm] * np.repeat(columns[name], each)
        return Layer(layer.linears, gains)

    logits = [
        make_runner(
            compile_model(replace(model, layer=lambda n, f=f: f(model.layer(n))), TEST)
        ).call(tokens, 0)
        for f in (scaled, folded, lambda layer: layer)
    ]
    assert logits[0].tobytes() == logits[1].tobytes() != logits[2].tobytes()


@pytest.mark.parametrize(
    ("name", "linear", "message"),
    [
        ("q", {"scale": np.ones(8, np.float32)}, "8 scales for 4 heads"),
        ("up", {"scale": np.ones(36, np.float32)}, "a scale for 2 rows"),
        ("v", {"column_scale": np.ones(2, np.float32) * 2}, "q, k, v scale the columns"),
    ],
)
def test_scales_that_no_program_gives(
    make_spec: Make, name: str, linear: dict, message: str
) -> None:
    model = random_model(make_spec())

    def layer(n: int) -> Layer:
        given = model.layer(n)
        linears = given.linears | {name: replace(given.linears[name], **linear)}
        return Layer(linears, given.gains)

    four_lanes = AcceleratorConfig.model_validate(
        TEST.model_dump() | {"lanes": 4, "rows": 4, "tables": 4}
    )
    with pytest.raises(UserError, match=f"layer 0: {message}"):
        compile_model(replace(model, layer=layer), four_lanes)


def test_the_tiny_configuration(make_spec: Make, make_runner) -> None:
    config = load_config("tiny")
    spec = make_spec(hidden=128, ffn=200, heads=4, kv_heads=2, head_dim=20, vocab=300, context=90)
    image = compile_model(random_model(spec, 1), config)
    tokens = np.random.default_rng(1).integers(0, spec.vocab, 90).tolist()
    results = []
    for chunk in (16, 7):
        runner = make_runner(image)
        results.append((runner.call(tokens, 0, chunk).tobytes(), runner.cache()))
    assert results[0] == results[1]


def test_configurations_differ_in_speed_only(make_spec: Make, make_runner) -> None:
    """The sums are exact: array, lanes and ports leave no trace in the logits."""
    model = random_model(make_spec(), 3)
    tokens = list(range(40))
    logits = [
        make_runner(compile_model(model, c)).call(tokens, 0).tobytes()
        for c in (TEST, ODD, load_config("tiny"))
    ]
    assert logits[0] == logits[1] == logits[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 65}, "hidden size is 66, max_hidden is 64"),
        ({"ffn": 129}, "feed-forward size is 130, max_row is 128"),
        ({"head_dim": 33 * 2}, "is 544, max_row is 128"),
        ({"head_dim": 34, "heads": 1, "kv_heads": 1}, "head size is 36, max_head_dim is 32"),
        ({"heads": 10, "head_dim": 2}, "number of heads is 10, max_heads is 8"),
    ],
)
def test_models_that_do_not_fit(make_spec: Make, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compile_model(random_model(make_spec(**change)), TEST)


def test_context_is_the_smaller_maximum(make_spec: Make, make_runner) -> None:
    assert compile_model(random_model(make_spec(context=1000)), TEST).context == 128
    model = random_model(make_spec(context=33))
    for context in (0, 34):
        with pytest.raises(UserError, match="1 to 33 are possible"):
            compile_model(model, TEST, context)
    runner = make_runner(compile_model(model, TEST))
    runner.call([1] * 33, 0)
    with pytest.raises(DeviceError, match="room for 33 positions"):
        runner.call([1], 33)


@pytest.fixture
def image(make_spec: Make) -> Image:
    return compile_model(random_model(make_spec()), TEST)


def test_calls_that_are_refused(image: Image) -> None:
    device = EmulatorDevice(TEST)
    with pytest.raises(DeviceError, match="no image"):
        device.start(1, 0)
    device.load(image)
    with pytest.raises(DeviceError, match="wait without a call"):
        device.wait()
    for call in ((0, 0, 1), (1, -1, 1), (1, 0, 0), (1, 0, TEST.chunk + 1)):
        with pytest.raises(DeviceError, match="bad call"):
            device.start(*call)
    device.start(1, 0)
    with pytest.raises(DeviceError, match="while a call runs"):
        device.start(1, 0)
    with pytest.raises(DeviceError, match="not inside the image"):
        device.write(image.size - 1, b"ab")
    with pytest.raises(UserError, match="compile the model again"):
        EmulatorDevice(ODD).load(image)


def patched(image: Image, op: Op, number: int = 0, **changes: int) -> EmulatorDevice:
    """A device whose `number`th command of kind `op` has other fields."""
    device = EmulatorDevice(TEST)
    device.load(image)
    commands = isa.decode_program(image.region("program").tobytes())
    index = [i for i, c in enumerate(commands) if c.op is op][number]
    data = isa.encode(op, commands[index].wait, **(commands[index].values | changes))
    device.write(image.program + isa.COMMAND_BYTES * index, data)
    device.start(3, 0)
    return device


@pytest.mark.parametrize(
    ("op", "changes", "message"),
    [
        (Op.LOAD, {"address": 1 << 31}, r"read beyond .*unit load, address 0x80000000, command 1"),
        (Op.FETCH, {"address": 1 << 31}, "unit weights"),
        (Op.FETCH, {"words": 3}, "bad command: .* words wanted, 3 fetched .*unit LINEAR"),
        (Op.FETCH, {"beats": 3}, r"bad dimension: FETCH: .* \* beats - .* is -.*unit FETCH"),
        (Op.KV_QUANT, {"address": 64}, "write below .*unit kv write, address 0x40"),
        (Op.KV_QUANT, {"address": 1 << 31}, "write beyond"),
        (Op.ATTENTION, {"address": 1 << 31}, r"read beyond .*unit kv, "),
        (
            Op.NORM_QUANT,
            {"ew": 999},
            "bad dimension: NORM_QUANT: ew is 999: 1 to 32 can be .unit VECTOR, address ",
        ),
        (Op.NORM_QUANT, {"source": 3}, "bad dimension: NORM_QUANT: source is 3: 0 to 1 can be"),
        (Op.LINEAR, {"out_rows": 1}, "out_rows is 1: at least 1, multiples of 2 can be"),
        (Op.LINEAR, {"mode": 7}, "bad dimension: LINEAR: mode is 7: 0 to 5 can be .unit LINEAR"),
    ],
)
def test_faults_name_unit_address_and_command(
    image: Image, op: Op, changes: dict, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        patched(image, op, **changes).wait()


def test_logits_outside_the_writable_regions(image: Image) -> None:
    with pytest.raises(DeviceError, match=r"write below .*unit logits write, address 0x40"):
        patched(image, Op.LINEAR, -1, address=64).wait()


def test_blank_memory_is_no_program(image: Image) -> None:
    device = EmulatorDevice(TEST)
    device.load(image)
    device.write(image.program, bytes(64))
    device.start(1, 0)
    with pytest.raises(DeviceError, match=r"0x00 is no opcode .*unit sequencer"):
        device.wait()


def test_progress_and_observer(image: Image) -> None:
    seen: list[Op] = []
    device = EmulatorDevice(TEST, lambda index, command, chunk, machine: seen.append(command.op))
    calls: list[tuple[int, int]] = []
    device.progress = lambda done, tokens: calls.append((done, tokens))
    with device:
        device.load(image)
        device.start(10, 0)
        device.wait()
    assert calls == [(4, 10), (8, 10), (10, 10)]
    assert seen.count(Op.ATTENTION) == 3 * image.spec.layers and seen.count(Op.CHUNK) == 1


HANDED_ON = {
    (Op.LINEAR, Op.NORM_QUANT): {"X", "F", "A8", "factor"},
    (Op.NORM_QUANT, Op.LINEAR): {"A8", "factor"},
    (Op.KV_QUANT, Op.ATTENTION): {"Q", "kv", "F"},
}
"""What the first hands on to the second while both are in progress."""


def test_every_dependence_is_waited_for(make_spec: Make) -> None:
    """Runs the program on a model of the units' concurrency: whatever a command touches must not
    be in the hands of a unit that may still be busy, but for what is handed on row by row."""
    for shape in SHAPES.values():
        image = compile_model(random_model(make_spec(**shape)), TEST)
        commands = isa.decode_program(image.region("program").tobytes())
        chunk = next(i for i, c in enumerate(commands) if c.op is Op.CHUNK)
        busy: dict[Unit, tuple[Op, set, set]] = {}
        followed = set()
        for command in [*commands[:chunk], *commands[:chunk], *commands]:
            for unit in Unit:
                if command.wait >> unit & 1:
                    busy.pop(unit, None)
            if command.op in (Op.CHUNK, Op.END):
                continue
            unit = isa.UNIT_OF[command.op]
            reads, writes = touched(command)
            for other, (op, other_reads, other_writes) in busy.items():
                if other is not unit:
                    conflict = reads & other_writes | writes & (other_reads | other_writes)
                    handed = set()
                    if command.values.get("follow", 1):
                        handed = HANDED_ON.get((op, command.op), set())
                    names = {c[0] if isinstance(c, tuple) else c for c in conflict}
                    assert names <= handed, (command, op)
                    if conflict:
                        followed.add((op, command.op))
            busy[unit] = (command.op, reads, writes)
        assert not busy, "END waits for all"
        assert followed == HANDED_ON.keys()


def touched(command: isa.Command) -> tuple[set, set]:
    """What a command reads and writes, from its fields alone."""
    if command.op is Op.LOAD:
        return set(), {("X", "rope", "gain", "scale")[command["dest"]]} - {"scale"}
    if command.op is Op.NORM_QUANT:
        gain = {"gain"} if command["gain"] else set()
        return {("X", "F")[command["source"]], *gain}, {"A8", "factor"}
    if command.op is Op.KV_QUANT:
        return {"F"}, {"Q", ("kv", command["address"])}
    if command.op is Op.ATTENTION:
        return {"Q", ("kv", command["address"])}, {"F"}
    if command.op is Op.LINEAR:
        mode = isa.Mode(command["mode"])
        base = {"A8", "factor"}
        if mode is isa.Mode.RESIDUAL:
            return base | {"X"}, {"X"}
        if mode is isa.Mode.HEAD:
            return base, {"logits"}
        return base | ({"rope"} if mode is isa.Mode.QKV else set()), {"F"}
    return set(), set()


@pytest.mark.parametrize(("rows", "k"), [(9, 7), (9, 1100), (800, 3000)])
@pytest.mark.parametrize("largest", [1, 121])
def test_products_are_exact(rows: int, k: int, largest: int) -> None:
    rng = np.random.default_rng(k)
    weights = rng.integers(-largest, largest + 1, (rows, k)).astype(np.int8)
    weights[0] = largest
    codes = rng.integers(-128, 128, (3, k)).astype(np.float32)
    codes[0] = -128
    exact = codes.astype(np.int64) @ weights.T.astype(np.int64)
    for tokens in (slice(0, 1), slice(0, 3)):
        assert np.array_equal(Matrix(weights, largest).dot(codes[tokens]), exact[tokens])


@pytest.mark.parametrize("newest", [0, 31, 32, 75])
def test_attention_equals_the_units_reference(newest: int) -> None:
    """Scores of all sizes, scales of V that rise and fall: every path of the rescaling."""
    rng = np.random.default_rng(newest)
    dims, heads, kv_heads, tokens = 6, 4, 2, min(3, newest + 1)
    position = newest + 1 - tokens
    padded = -(-(newest + 1) // KV_BLOCK) * KV_BLOCK
    for size in (1e-9, 1e-7, 1e-5, 1.0):
        q = rng.integers(-32767, 32768, (tokens, heads, dims))
        q_scale = (size * rng.random((tokens, heads))).astype(np.float32)
        k, v = rng.integers(-32767, 32768, (2, kv_heads, padded, dims))
        k_scale = rng.random((kv_heads, padded)).astype(np.float32)
        v_scale = np.exp2(rng.integers(-60, 60, (kv_heads, padded))).astype(np.float32)
        expected = unit_reference(q, q_scale, k, k_scale, v, v_scale, position)
        rows = (kv_heads, heads // kv_heads * tokens)
        out = attend(
            q.transpose(1, 0, 2).reshape(*rows, dims).astype(np.float64),
            q_scale.T.reshape(rows),
            KvCodes(k.astype(np.float64), v.astype(np.float64), k_scale, v_scale),
            np.tile(position + np.arange(tokens), heads // kv_heads),
        )
        out = out.reshape(heads, tokens, dims).transpose(1, 0, 2).reshape(tokens, heads * dims)
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("op", "number", "message"),
    [
        (Op.LINEAR, 0, "bad program: END before CHUNK"),
        (Op.CHUNK, 0, "bad program: END before CHUNK"),
        (Op.FETCH, 1, "bad program: END before the LM head"),
        (Op.NORM_QUANT, -1, "bad program: END before the LM head"),
    ],
)
def test_a_program_that_ends_early(image: Image, op: Op, number: int, message: str) -> None:
    commands = isa.decode_program(image.region("program").tobytes())
    index = [i for i, c in enumerate(commands) if c.op is op][number]
    with EmulatorDevice(TEST) as device:
        device.load(image)
        device.write(image.program + isa.COMMAND_BYTES * index, isa.encode(Op.END))
        device.start(3, 0)
        with pytest.raises(DeviceError, match=message) as error:
            device.wait()
    assert error.value.unit == "sequencer"
    assert error.value.command == index
    assert error.value.address == image.program + isa.COMMAND_BYTES * index


def test_weights_that_are_left_over(image: Image) -> None:
    with pytest.raises(DeviceError, match=r"bad program: \d+ weight words are left over"):
        patched(image, Op.LINEAR, 0, tiles=1, out_rows=2, tile_words=1, last_words=1).wait()
