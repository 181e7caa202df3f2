"""The cycle model without RTL: its formulas are the gateware's, its answers make sense."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time

import pytest

from terntable.host.compiler import compile_model
from terntable.host.cycles import predict
from terntable.host.cycles.outline import outline_program
from terntable.host.devices.register_device import COUNTERS
from terntable.host.model import load_model, random_model
from terntable.host.named_shapes import named_shape
from terntable.hw import isa
from terntable.hw.config import load_config
from terntable.hw.isa import KvFormat
from terntable.sim.dram import DramModel

KV260, TINY = load_config("kv260"), load_config("tiny")
BITNET, LARGE = named_shape("bitnet-0.73b"), named_shape("bitnet-2b-4t")


def test_the_outlined_program_is_the_compiled_one() -> None:
    # Its addresses and scales apart, which cost nothing.
    model = load_model("tiny")
    image = compile_model(random_model(model.spec), TINY, 100)
    compiled = isa.decode_program(image.region("program").tobytes())
    outlined = outline_program(model.spec, TINY, 100)

    def costs(command: isa.Command) -> dict[str, int | float]:
        free = ("address", "port_stride", "scale")
        return {k: v for k, v in command.values.items() if not k.startswith(free)}

    assert [(c.op, c.wait, costs(c)) for c in outlined] == [
        (c.op, c.wait, costs(c)) for c in compiled
    ]


@pytest.mark.parametrize(
    ("spec", "tokens", "position", "seconds"),
    [(BITNET, 1, 128, 0.5), (LARGE, 1, 4000, 0.5), (BITNET, 128, 0, 0.5), (BITNET, 1000, 0, 1.5)],
)
def test_prediction_is_quick(spec: object, tokens: int, position: int, seconds: float) -> None:
    began = time.process_time()
    predict(spec, KV260, tokens, position)
    assert time.process_time() - began < seconds


def test_layers_that_are_not_run_are_like_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [(1, 700), (100, 0)]
    quick = [predict(BITNET, KV260, *call) for call in calls]
    module = importlib.import_module("terntable.host.cycles.predict")  # not the function
    monkeypatch.setattr(module, "RHYTHM", BITNET.layers)
    for guess, call in zip(quick, calls, strict=True):
        whole = predict(BITNET, KV260, *call)
        assert guess.cycles == pytest.approx(whole.cycles, rel=2e-4)
        assert guess.unit_cycles == pytest.approx(whole.unit_cycles, rel=1e-3)


def test_more_work_takes_longer() -> None:
    def cycles(tokens: int, position: int = 0, **given: object) -> int:
        return predict(BITNET, KV260, tokens, position, **given).cycles

    contexts = [cycles(1, n) for n in (1, 100, 500, 2000)]
    prompts = [cycles(n) for n in (1, 17, 64, 200)]
    formats = [cycles(1, 2000, kv=kv) for kv in (KvFormat.INT4, KvFormat.INT8, KvFormat.INT16)]
    for rising in (contexts, prompts, formats):
        assert rising == sorted(set(rising))
    assert cycles(1, 100, planes=4) < cycles(1, 100, planes=5)


def test_no_call_is_faster_than_its_bytes() -> None:
    for bandwidth in (14.0e9, 7.0e9, 1.0e9):
        guess = predict(BITNET, KV260, 1, 128, dram=DramModel(bandwidth=bandwidth))
        beats = guess.unit_cycles["read_beats"] + guess.unit_cycles["write_beats"]
        # Rows that are loaded while K and V are read get what they ask for: a small overdraft.
        assert guess.cycles >= 0.995 * 16 * beats / (bandwidth / 250e6)


def test_weights_are_waited_for_where_memory_is_slow() -> None:
    fast, slow = (
        predict(BITNET, KV260, 1, 128, dram=DramModel(bandwidth=b)).unit_cycles["weight_wait"]
        for b in (14.0e9, 7.0e9)
    )
    assert slow > 2 * fast


def test_every_counter_is_there_whatever_was_waited_for() -> None:
    quick = TINY.model_copy(update={"table_buffers": 2})
    for config, call in ((TINY, (1, 128)), (quick, (1, 128)), (quick, (64, 0))):
        guess = predict(load_model("tiny").spec, config, *call)
        assert set(guess.unit_cycles) == set(COUNTERS)


def test_it_needs_no_gateware_packages() -> None:
    code = (
        "import sys; sys.modules['amaranth'] = sys.modules['cocotb'] = None\n"
        "from terntable.host.cycles import predict\n"
        "from terntable.host.named_shapes import named_shape\n"
        "from terntable.hw.config import load_config\n"
        "print(predict(named_shape('bitnet-0.73b'), load_config('kv260'), 1, 128).cycles)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3_000_000
