"""Traces of devices and what is said of their differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from terntable.host.comparison import (
    Trace,
    difference,
    first_kv_layer,
    record,
    relative_rms,
)
from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.emulator import Chunk, Machine
from terntable.host.image import Image
from terntable.host.model import Layer, Model, ModelSpec, TernaryLinear, random_model
from terntable.host.session import Session
from terntable.hw.config import load_config
from terntable.hw.isa import Command, Mode, Op

CONFIG = load_config("test")
PROMPT = [3, 1, 4, 1, 5, 9, 2]


@pytest.fixture
def model(make_spec: Callable[..., ModelSpec]) -> Model:
    return random_model(make_spec(layers=3, head_dim=8), 5)


def trace_of(model: Model, forced: list[int] | None = None, steps: int = 4) -> Trace:
    image = compile_model(model, CONFIG)
    return record(EmulatorDevice(CONFIG), image, PROMPT, steps, forced)


def with_scale(model: Model, layer: int, name: str, factor: float) -> Model:
    """The model with one matrix scaled."""

    def read(n: int) -> Layer:
        given = model.layer(n)
        if n != layer:
            return given
        old = given.linears[name]
        changed = TernaryLinear(old.trits, np.float32(old.scale * np.float32(factor)))
        return Layer(given.linears | {name: changed}, given.gains)

    return replace(model, layer=read)


def test_a_free_run_is_the_sessions(model: Model) -> None:
    trace = trace_of(model)
    image = compile_model(model, CONFIG)
    expected = Session(EmulatorDevice(CONFIG), image).generate(PROMPT, 4)
    assert trace.choices == expected.tokens
    assert np.array_equal(np.stack(trace.logits), np.stack(expected.logits))
    assert trace.device == "emulator" and len(trace.kv) == 3
    assert trace.prefill_seconds > 0 and trace.decode_rate > 0
    assert trace_of(model, steps=1).decode_rate is None


def test_a_free_run_ends_at_an_end_of_sequence(model: Model) -> None:
    choices = trace_of(model).choices
    ends = model.spec.model_copy(update={"eos_ids": (choices[1],)})
    ended = trace_of(replace(model, spec=ends))
    assert ended.choices == choices[: choices.index(choices[1]) + 1]
    # Forced tokens are all run, whatever they are.
    assert len(trace_of(replace(model, spec=ends), forced=choices).choices) == 4


def test_forced_tokens_are_what_is_run(model: Model) -> None:
    forced = [11, 22, 33]
    assert trace_of(model).choices[:3] != forced
    trace = trace_of(model, forced)
    session = Session(EmulatorDevice(CONFIG), compile_model(model, CONFIG))
    expected = [session.call(PROMPT)[0], session.call([11])[0], session.call([22])[0]]
    assert np.array_equal(np.stack(trace.logits), np.stack(expected))
    assert trace.choices == [int(np.argmax(logits)) for logits in expected]


def test_equal_runs_are_identical(model: Model) -> None:
    first = trace_of(model)
    apart = difference(trace_of(model, first.choices), first)
    assert apart.identical and all(apart.agree)
    assert (apart.rms_error, apart.largest, apart.layer_errors) == (0, 0, [0, 0, 0])
    assert apart.first_layer(0) is None
    assert first_kv_layer(trace_of(model, first.choices), first) is None


def test_the_first_layer_that_differs(model: Model) -> None:
    """K and V of a layer are made before the layer can differ itself."""
    first = trace_of(model)
    for layer in range(3):
        other = trace_of(with_scale(model, layer, "down", -1), first.choices)
        apart = difference(other, first)
        assert apart.first_layer(0.05) == layer
        assert apart.layer_errors[:layer] == [0] * layer
        assert not apart.identical
        assert first_kv_layer(other, first) == (layer + 1 if layer < 2 else None)


def test_small_differences(model: Model) -> None:
    first = trace_of(model)
    logits = [row.copy() for row in first.logits]
    logits[2][7] += 0.5
    logits[3][first.choices[3]] = -100
    other = replace(first, logits=logits, choices=[int(np.argmax(row)) for row in logits])
    apart = difference(other, first)
    assert apart.agree == [True, True, True, False]
    assert apart.largest == pytest.approx(100 + first.logits[3][first.choices[3]])
    assert not apart.identical


def test_the_sign_of_a_zero_is_a_bit(model: Model) -> None:
    first = trace_of(model, steps=1)
    plus, minus = first.logits[0].copy(), first.logits[0].copy()
    plus[0], minus[0] = 0.0, -0.0
    apart = difference(replace(first, logits=[plus]), replace(first, logits=[minus]))
    assert apart.rms_error == 0 and not apart.identical


def test_without_layers_no_layer_is_named(model: Model) -> None:
    first = trace_of(model)
    apart = difference(replace(first, layers=[]), first)
    assert apart.layer_errors == [] and apart.first_layer(0) is None


def test_relative_root_mean_square() -> None:
    b = np.array([3, 4], np.float32)
    assert relative_rms(b * 1.5, b) == pytest.approx(0.5)
    assert relative_rms(b * 0, b * 0) == 0
    assert relative_rms(b, b * 0) == np.inf


def test_layers_are_what_the_down_matrix_left(model: Model) -> None:
    """The tap against the residual rows right after each layer's last command that writes them."""
    image: Image = compile_model(model, CONFIG)
    rows: dict[int, np.ndarray] = {}

    def watch(index: int, command: Command, chunk: Chunk, machine: Machine) -> None:
        if command.op is Op.LINEAR and command["mode"] == Mode.RESIDUAL:
            rows[index] = machine.x[chunk.tokens - 1, : model.spec.hidden].copy()

    device = EmulatorDevice(CONFIG, watch)
    Session(device, image).call(PROMPT)  # a chunk of 4 and one of 3
    expected = [row for _, row in sorted(rows.items())][1::2]
    trace = record(EmulatorDevice(CONFIG), image, PROMPT, 1)
    assert np.array_equal(trace.layers[0], np.stack(expected))
