"""The container: all types of metadata, tensors in place, damaged and hostile files."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terntable.host.checkpoints.gguf_file import TYPES, Gguf, GgufFile
from terntable.host.model import load_model
from terntable.hw.errors import UserError

from .gguf_cases import gguf, small_model, spec_of, write_gguf

SCALARS = {
    gguf.GGUFValueType.UINT8: 200,
    gguf.GGUFValueType.INT8: -100,
    gguf.GGUFValueType.UINT16: 60000,
    gguf.GGUFValueType.INT16: -30000,
    gguf.GGUFValueType.UINT32: 4_000_000_000,
    gguf.GGUFValueType.INT32: -2_000_000_000,
    gguf.GGUFValueType.UINT64: 1 << 63,
    gguf.GGUFValueType.INT64: -(1 << 62),
    gguf.GGUFValueType.FLOAT32: 1e-5,
    gguf.GGUFValueType.FLOAT64: 1e-300,
    gguf.GGUFValueType.BOOL: True,
}
"""The number that each type shows best."""


def write(path: Path, fill=lambda writer: None, tensors=None) -> Path:
    writer = gguf.GGUFWriter(path, "test")
    fill(writer)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_all_types_of_metadata(tmp_path: Path) -> None:
    words = ["", "a", "snow ☃", "\n"]

    def fill(writer) -> None:
        for kind, value in SCALARS.items():
            writer.add_key_value(kind.name, value, kind)
        writer.add_string("text", "snow ☃")
        writer.add_array("words", words)
        writer.add_array("numbers", [1, -2, 3])
        writer.add_array("same", [7, 7])
        writer.add_array("nested", [[1, 2], [3]])

    metadata = GgufFile(write(tmp_path / "m.gguf", fill)).metadata
    for kind, value in SCALARS.items():
        assert metadata.values[kind.name] == value
        assert type(metadata.values[kind.name]) is type(value)
    assert metadata.text("text") == "snow ☃"
    assert list(metadata.strings("words")) == words
    assert metadata.strings("words")[1:3] == ["a", "snow ☃"]
    assert metadata.numbers("numbers", 2).tolist() == [1, -2]
    assert metadata.integer("same") == 7
    assert [part.tolist() for part in metadata.values["nested"]] == [[1, 2], [3]]
    assert metadata.integer("absent", 3) == 3 and "absent" not in metadata
    for call, message in (
        (lambda: metadata.integer("absent"), "absent is missing"),
        (lambda: metadata.integer("text"), "text is no integer"),
        (lambda: metadata.integer("BOOL"), "BOOL is no integer"),
        (lambda: metadata.integer("numbers"), "numbers is no integer shared by all layers"),
        (lambda: metadata.real("text"), "text is no number"),
        (lambda: metadata.flag("INT8", True), "INT8 is no truth value"),
        (lambda: metadata.text("INT8"), "INT8 is no string"),
        (lambda: metadata.strings("numbers"), "numbers is no array of strings"),
        (lambda: metadata.numbers("words", 1), "words is no array of numbers"),
        (lambda: metadata.numbers("numbers", 4), "numbers has 3 entries, not 4"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_tensors_lie_where_the_file_says(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    small = np.arange(5, dtype=np.float16)
    file = Gguf(write(tmp_path / "m.gguf", tensors={"a": small, "b": values}))
    assert file["b"].shape == (2, 3, 4) and file["b"].type.name == "F32"
    assert np.array_equal(file["b"].data.view("<f4").reshape(2, 3, 4), values)
    assert np.array_equal(file["a"].data.view("<f2"), small)
    with pytest.raises(UserError, match="tensor c is missing"):
        file["c"]


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    def fill(writer) -> None:
        writer.add_custom_alignment(alignment)

    values = {"a": np.arange(3, dtype=np.float32), "b": np.ones(3, np.float32)}
    file = Gguf(write(tmp_path / "m.gguf", fill, values))
    assert all(np.array_equal(file[k].data.view("<f4"), v) for k, v in values.items())


def test_models_in_several_files(tmp_path: Path) -> None:
    """As llama.cpp splits them: all metadata in the first file, tensors in all."""
    for n in range(3):

        def fill(writer, n: int = n) -> None:
            writer.add_uint16("split.no", n)
            writer.add_uint16("split.count", 3)
            if n == 0:
                writer.add_string("general.name", "parts")

        tensors = {f"t{n}": np.full(4, n, np.float32)}
        write(tmp_path / f"m-{n + 1:05}-of-00003.gguf", fill, tensors)
    for n in (1, 3):
        file = Gguf(tmp_path / f"m-{n:05}-of-00003.gguf")
        assert file.metadata.text("general.name") == "parts"
        assert [file[f"t{i}"].data.view("<f4")[0] for i in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="architecture 'test' is not known"):
        load_model(tmp_path)  # found by the first file's name
    (tmp_path / "m-00002-of-00003.gguf").rename(tmp_path / "other.gguf")
    with pytest.raises(UserError, match=r"m-00002-of-00003\.gguf is missing: the model has 3"):
        Gguf(tmp_path / "m-00001-of-00003.gguf")
    with pytest.raises(UserError, match=r"one of 3 files: name it NAME-00001-of-00003\.gguf"):
        Gguf(tmp_path / "other.gguf")


# ------------------------------------------------------------ damaged and hostile files


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def header(keys: list[bytes], tensors: list[bytes] = (), version: int = 3) -> bytes:
    return (
        b"GGUF"
        + struct.pack("<IQQ", version, len(tensors), len(keys))
        + b"".join([*keys, *tensors])
    )


def entry(name: str, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return string(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


HUGE = struct.pack("<Q", 1 << 62)
TEXT, LIST, U8, U32 = (struct.pack("<I", n) for n in (8, 9, 0, 4))
NESTED = LIST + (LIST + struct.pack("<Q", 1)) * 40
BAD = {
    "no magic": (b"GGML" + bytes(40), "not a GGUF file"),
    "nothing": (b"GGUF", "not a GGUF file, or cut short"),
    "version 1": (header([], version=1) + bytes(8), "GGUF version 1: 2 and 3 are supported"),
    "version 4": (header([], version=4) + bytes(8), "GGUF version 4: 2 and 3 are supported"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "a big-endian GGUF file: convert it"),
    "many keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata keys"),
    "many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors"),
    "long key": (header([HUGE + b"x"]), "a metadata key of 4,611,686,018,427,387,904 bytes"),
    "key that is no text": (header([struct.pack("<Q", 1) + b"\xff" + U8 + b"a"]), "isn't UTF-8"),
    "key twice": (header([string("a") + U8 + b"a"] * 2), "a comes twice"),
    "unknown value type": (header([string("k") + struct.pack("<I", 13)]), "value type 13"),
    "long text": (header([string("k") + TEXT + HUGE]), "a value of k of 4,611"),
    "long array": (header([string("k") + LIST + U32 + HUGE]), "an array k of 4,611"),
    "many texts": (header([string("k") + LIST + TEXT + HUGE]), "an array k of 4,611"),
    "texts cut short": (
        header([string("k") + LIST + TEXT + struct.pack("<QQ", 2, 0)]),
        "an array k of 2",
    ),
    "many arrays": (header([string("k") + LIST + LIST + HUGE]), "an array k of 4,611"),
    "deep arrays": (header([string("k") + NESTED]), "an array k of 1 arrays"),
    "alignment": (
        header([string("general.alignment") + U32 + struct.pack("<I", 12)]),
        "general.alignment is 12",
    ),
    "no dimension": (header([], [entry("t", (), 0)]), "tensor t has 0 dimensions"),
    "five dimensions": (header([], [entry("t", (1,) * 5, 0)]), "tensor t has 5 dimensions"),
    "empty": (header([], [entry("t", (0, 4), 0)]), r"shape \(4, 0\): it is empty"),
    "huge shape": (header([], [entry("t", (1 << 60,) * 4, 0)]), "cut short: tensor t ends at byte"),
    "unknown type": (
        header([], [entry("t", (4,), 99)]),
        "tensor t has type 99: F32 0, F16 1, .* TQ1_0 34, TQ2_0 35, I2_S 36 are known",
    ),
    "type with two meanings": (
        header([], [entry("t", (4,), 39)]),
        r"tensor t has type 39 \(TL2 of bitnet\.cpp, or MXFP4\)",
    ),
    "half a block": (header([], [entry("t", (8, 4), 34)]), "TQ1_0 has blocks of 256"),
    "half a block of I2_S": (header([], [entry("t", (8, 4), 36)]), "I2_S has blocks of 128"),
    "far away": (header([], [entry("t", (4,), 0, 1 << 62)]) + bytes(64), "cut short: tensor t"),
    "not aligned": (header([], [entry("t", (4,), 0, 4)]) + bytes(64), "tensor t is not aligned"),
    "tensor twice": (header([], [entry("t", (4,), 0)] * 2) + bytes(64), "tensor t comes twice"),
    "overlap": (
        header([], [entry("t", (16,), 0), entry("u", (4,), 0, 32)]) + bytes(96),
        r"tensor t has 32 bytes, not the 64 that F32 of shape \(16,\) takes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_explained(tmp_path: Path, name: str) -> None:
    data, message = BAD[name]
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        load_model(file) if data.startswith(b"GGUF") else GgufFile(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    model = small_model(spec_of("bitnet", layers=1))
    data = write_gguf(tmp_path / "m.gguf", model, "bitnet", "TQ2_0").read_bytes()
    for size in (*range(0, 400, 7), len(data) // 2, len(data) - 32):
        (tmp_path / "m.gguf").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut short|no checkpoint|not a GGUF"):
            load_model(tmp_path / "m.gguf")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole small file with a vocabulary."""

    def fill(writer) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([f"t{i}" for i in range(96)])
        writer.add_token_types([1] * 96)
        writer.add_token_merges(["t 1", "t 2"])
        writer.add_bos_token_id(1)
        writer.add_array("nested", [[1, 2], [3]])

    model = small_model(spec_of("bitnet", layers=1, hidden=256, ffn=256, heads=4, kv_heads=1))
    file = tmp_path_factory.mktemp("fuzz") / "m.gguf"
    return write_gguf(file, model, "bitnet", "TQ2_0", change=fill).read_bytes()


WORDS = [0, 1, 2, 3, 8, 9, 34, 36, 255, 1 << 16, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, 1 << 63]
HEADER = 3000
"""Bytes at the front in which most things are decided."""


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Bytes to put over others, most of them where the header lies."""
    values = st.one_of(
        st.binary(min_size=1, max_size=16),
        st.sampled_from(WORDS).map(lambda n: n.to_bytes(8, "little")),
        st.sampled_from(WORDS).map(lambda n: (n & 0xFFFFFFFF).to_bytes(4, "little")),
    )
    places = st.one_of(st.integers(0, 64), st.integers(0, HEADER), st.integers(0, 1 << 20))
    return draw(st.lists(st.tuples(places, values), min_size=1, max_size=6))


def opens_or_is_refused(file: Path) -> None:
    """Either a model comes out of a file, all of which can be read, or one line. Quickly, and in
    little memory."""
    began = time.process_time()
    tracemalloc.start()
    try:
        model = load_model(file)
        for n in range(min(model.spec.layers, 2)):
            model.layer(n)
        model.text()
    except UserError as e:
        assert "\n" not in str(e)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 30
    assert time.process_time() - began < 10


FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZ, max_examples=250)
@given(changes=damages(), cut=st.one_of(st.none(), st.integers(0, 1 << 18)))
def test_damaged_files(tmp_path: Path, good: bytes, changes, cut: int | None) -> None:
    data = bytearray(good)
    for at, value in changes:
        at %= len(data)
        data[at : at + len(value)] = value
    (tmp_path / "m.gguf").write_bytes(data[:cut])
    opens_or_is_refused(tmp_path / "m.gguf")


@settings(FUZZ, max_examples=150)
@given(data=st.binary(max_size=400), keys=st.integers(0, 3), tensors=st.integers(0, 3))
def test_random_bytes(tmp_path: Path, data: bytes, keys: int, tensors: int) -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)
    (tmp_path / "m.gguf").write_bytes(start + data)
    opens_or_is_refused(tmp_path / "m.gguf")


KEYS = st.builds(
    lambda name, kind, value: string(name) + struct.pack("<I", kind) + value,
    st.sampled_from(["general.architecture", "general.alignment", "split.count", "a", "b"]),
    st.integers(0, 13),
    st.one_of(
        st.binary(max_size=40),
        st.text(max_size=9).map(string),
        st.builds(
            lambda kind, n, rest: struct.pack("<IQ", kind, n) + rest,
            st.integers(0, 13),
            st.sampled_from([0, 1, 2, 3, 1 << 20, 1 << 33, 1 << 62]),
            st.binary(max_size=64),
        ),
    ),
)
ENTRIES = st.builds(
    entry,
    st.text(max_size=9),
    st.lists(st.sampled_from([0, 1, 4, 128, 256, 1 << 31, 1 << 63]), max_size=5).map(tuple),
    st.sampled_from([*TYPES, 38, 39, 99]),
    st.sampled_from([0, 4, 32, 64, 1 << 40, 1 << 63]),
)


@settings(FUZZ, max_examples=250)
@given(st.lists(KEYS, max_size=4), st.lists(ENTRIES, max_size=4), st.integers(0, 512))
def test_made_up_headers(tmp_path: Path, keys: list, tensors: list, rest: int) -> None:
    (tmp_path / "m.gguf").write_bytes(header(keys, tensors) + bytes(rest))
    opens_or_is_refused(tmp_path / "m.gguf")
