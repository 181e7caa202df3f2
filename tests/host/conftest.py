"""Small models and one-line calls for the host's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from terntable.host.cli import main
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec

SMALL = {
    "name": "small",
    "layers": 2,
    "hidden": 24,
    "ffn": 36,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 6,
    "vocab": 50,
    "context": 96,
    "rope_theta": 10000.0,
    "eps": 1e-5,
    "activation": "relu2",
    "attn_sub_norm": True,
    "ffn_sub_norm": True,
    "tied": True,
}


class Outcome:
    """What a command left: its exit status and what it printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process."""

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(int(end.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def make_spec() -> Callable[..., ModelSpec]:
    """A small ModelSpec with the given fields changed."""
    return lambda **changes: ModelSpec(**(SMALL | changes))


@dataclass
class Runner:
    """An image on an emulator, called with token ids."""

    image: Image
    device: EmulatorDevice

    @classmethod
    def of(cls, image: Image) -> Runner:
        device = EmulatorDevice(image.config)
        device.load(image)
        return cls(image, device)

    def call(self, tokens: list[int], position: int, chunk: int | None = None) -> np.ndarray:
        """Logits after `tokens`."""
        self.device.write(self.image.regions["input"].offset, self.image.embed(tokens).tobytes())
        self.device.start(len(tokens), position, chunk)
        result = self.device.wait()
        logits = self.logits()
        assert result.argmax == int(np.argmax(logits))
        assert np.float32(result.argmax_logit) == logits.max()
        return logits

    def logits(self) -> np.ndarray:
        at = self.image.regions["logits"].offset
        return np.frombuffer(self.device.read(at, 4 * self.image.spec.vocab), np.float32).copy()

    def cache(self) -> bytes:
        region = self.image.regions["kv"]
        return self.device.read(region.offset, region.size)


@pytest.fixture
def make_runner() -> Callable[[Image], Runner]:
    return Runner.of
