"""Damaged and hostile folders: a model or one line, never another exception, and little memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terntable.host.checkpoints.bundle_writer import write_bundle
from terntable.host.checkpoints.tensors import TensorFile
from terntable.host.model import load_model
from terntable.hw.errors import UserError

FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.integers(),
    st.sampled_from([10**30, 2**63, 2**64 - 1, -(2**63)]),
    st.floats(),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.just("bitnet")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Memory that a test adds to the process, and its time."""

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before, began = peak(), time.perf_counter()
    yield
    assert peak() - before < 1 << 30
    assert time.perf_counter() - began < 60


def try_model(path: Path) -> bool:
    """Whether all of it can be read; else the mistake is one line that names the place."""
    try:
        model = load_model(path)
        for n in range(model.spec.layers):
            model.layer(n)
        model.text()
    except UserError as e:
        assert str(path) in str(e)
        return False
    return True


@FUZZ
@given(
    length=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    header=st.one_of(
        st.binary(max_size=60),
        VALUES.map(lambda v: json.dumps(v).encode()),
        st.dictionaries(
            st.sampled_from(["a", "model.norm.weight", "__metadata__"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "dtype": st.sampled_from(["F32", "BF16", "F16", "U8", "I64", "F4", 3, None]),
                    "shape": st.one_of(st.lists(NUMBERS, max_size=3), VALUES),
                    "data_offsets": st.one_of(st.tuples(NUMBERS, NUMBERS), VALUES),
                },
            ),
        ).map(lambda v: json.dumps(v).encode()),
    ),
    data=st.binary(max_size=40),
)
def test_safetensors_headers(
    tmp_path: Path, length: int | None, header: bytes, data: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + data)
    try:
        file = TensorFile(path)
        for name, entry in file.header.items():
            file.check(name, tuple(entry["shape"]), ("F32", "BF16", "F16", "U8"))
            assert file.read(name).shape == tuple(entry["shape"])
    except UserError as e:
        assert str(path) in str(e)


def test_damaged_weights(folder) -> None:
    path = folder.write()
    file = path / "model.safetensors"
    good = file.read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")

    @FUZZ
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, end + 200), st.binary(min_size=1, max_size=4)), max_size=3
        ),
        kept=st.one_of(st.just(len(good)), st.integers(0, len(good))),
    )
    def run(changes: list[tuple[int, bytes]], kept: int) -> None:
        data = bytearray(good)
        for at, new in changes:
            data[at : at + len(new)] = new
        file.write_bytes(data[:kept])
        try_model(path)

    run()
    file.write_bytes(good)
    assert try_model(path)


def test_config_json(folder) -> None:
    path = folder.write()
    keys = [
        *folder.config,
        "rope_scaling",
        "rope_parameters",
        "attention_bias",
        "weight_bits",
        "partial_rotary_factor",
    ]
    inner = ["quant_method", "linear_class", "quantization_mode", "modules_to_not_convert"]
    names = st.sampled_from(["LlamaForCausalLM", "BitNetForCausalLM", "BitnetForCausalLM"])

    @FUZZ
    @given(
        changes=st.dictionaries(st.sampled_from(keys), VALUES, max_size=3),
        removed=st.sets(st.sampled_from(keys), max_size=2),
        quantisation=st.dictionaries(st.sampled_from(inner), VALUES, max_size=2),
        architectures=st.one_of(st.none(), names, st.lists(names, max_size=2), VALUES),
        generation=st.one_of(st.none(), VALUES),
    )
    def run(changes, removed, quantisation, architectures, generation: Any) -> None:
        config = dict(folder.config)
        config["quantization_config"] = config["quantization_config"] | quantisation
        config["architectures"] = architectures
        config = {k: v for k, v in (config | changes).items() if k not in removed}
        (path / "config.json").write_text(json.dumps(config))
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
        try_model(path)

    run()

    @FUZZ
    @given(text=st.one_of(st.binary(max_size=50), VALUES.map(lambda v: json.dumps(v).encode())))
    def raw(text: bytes) -> None:
        for name in ("config.json", "tokenizer_config.json", "model.safetensors.index.json"):
            (path / name).write_bytes(text)
        try_model(path)

    raw()
    for name in ("generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"):
        (path / name).unlink()
    (path / "config.json").write_text(json.dumps(folder.config))
    assert try_model(path)


def test_model_json(folder, tmp_path: Path) -> None:
    out = tmp_path / "b"
    write_bundle(load_model(folder.write()), out)
    good = json.loads((out / "model.json").read_text())

    @FUZZ
    @given(
        changes=st.dictionaries(st.sampled_from(sorted(good)), VALUES, max_size=2),
        spec=st.dictionaries(st.sampled_from(sorted(good["spec"])), VALUES, max_size=2),
        crcs=st.dictionaries(st.sampled_from(sorted(good["crc32"])), VALUES, max_size=2),
    )
    def run(changes: dict, spec: dict, crcs: dict) -> None:
        changed = good | {"spec": good["spec"] | spec, "crc32": good["crc32"] | crcs} | changes
        (out / "model.json").write_text(json.dumps(changed))
        try_model(out)

    run()
    (out / "model.json").write_text(json.dumps(good))
    assert try_model(out)


@pytest.mark.parametrize(
    "unit", [b"[],", b'{"a":0},', b"[", b'{"a":'], ids=["lists", "objects", "depth", "deep objects"]
)
def test_headers_as_large_as_are_read(folder, unit: bytes) -> None:
    """A parser's worst cases within the limit."""
    path = folder.write()
    text = b"[" + unit * ((8 << 20) // len(unit) - 1)
    text = text[:-1] + b"]" if unit.endswith(b",") else text
    header = len(text).to_bytes(8, "little") + text + bytes(64)
    (path / "model.safetensors").write_bytes(header)
    assert not try_model(path)
    (path / "config.json").write_bytes(text)
    assert not try_model(path)


def test_many_tensors(folder) -> None:
    path = folder.write()
    entry = {"dtype": "F32", "shape": [], "data_offsets": [0, 0]}
    text = json.dumps({f"t{n}": entry for n in range(125_000)}, separators=(",", ":")).encode()
    assert 6 << 20 < len(text) < 8 << 20
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert not try_model(path)
