"""The contract of Device, on every device: what calls do, what is refused, what is kept.

Boards here are one at a pseudo-terminal with the emulator in it, and one on UIO and u-dma-buf with
the simulated Verilog. The simulator itself runs too, with the configuration and the build that the
whole-accelerator tests have: its calls are short.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from terntable.host.compiler import compile_model, outline
from terntable.host.devices import DEVICES, TAKES_MODEL, missing, open_device
from terntable.host.devices.base import Device, DeviceError
from terntable.host.image import Image
from terntable.host.model import Model, ModelSpec, random_model
from terntable.host.session import Session
from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from .pty_board import BoardOnPty
from .uio_board import BoardOnUio

UIO_BOARD = "board on UIO"
RTL = ("sim", UIO_BOARD)

CONFIG = load_config("test")
SPEC = ModelSpec(
    name="contract", layers=2, hidden=24, ffn=36, heads=4, kv_heads=2, head_dim=8, vocab=50,
    context=CONFIG.max_context, rope_theta=1e4, eps=1e-5, activation="relu2", attn_sub_norm=True,
    ffn_sub_norm=True,
)  # fmt: skip
MODEL = random_model(SPEC, seed=6)
IDS = np.random.default_rng(6).integers(0, SPEC.vocab, 9).tolist()


def image_for(name: str, model: Model = MODEL) -> Image:
    return outline(model, CONFIG) if name in TAKES_MODEL else compile_model(model, CONFIG)


@dataclass
class Bench:
    """An open device and an image for it, loaded afresh for each test."""

    name: str
    device: Device
    image: Image

    @property
    def exact(self) -> bool:
        """Whether results don't depend on how a prompt is cut."""
        return self.name not in TAKES_MODEL

    def call(self, ids: list[int], position: int = 0, chunk: int | None = None) -> np.ndarray:
        """Logits after `ids` at `position`; argmax is checked on the way."""
        rows = self.image.embed(ids).tobytes()
        self.device.write(self.image.regions["input"].offset, rows)
        self.device.start(len(ids), position, chunk)
        result = self.device.wait()
        logits = self.logits()
        assert result.argmax == int(np.argmax(logits))
        assert np.float32(result.argmax_logit) == logits.max()
        return logits

    def logits(self) -> np.ndarray:
        raw = self.device.read(self.image.regions["logits"].offset, 4 * SPEC.vocab)
        return np.frombuffer(raw, np.float32)

    def check_same(self, got: np.ndarray, expected: np.ndarray) -> None:
        """Bit for bit; in floating point, as near as an int8 code that turned allows."""
        if self.exact:
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))
        else:
            assert np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)) < 0.02


def opened(name: str) -> Device:
    """The device, or a skip that says why there is none here."""
    if lack := missing(name):
        pytest.skip(lack)
    if name == "board":
        return BoardOnPty(CONFIG)
    if name == UIO_BOARD:
        return BoardOnUio(CONFIG, poll=5.0, patience=60.0)  # on a busy machine
    return open_device(name, CONFIG, model=MODEL)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(n, marks=[pytest.mark.xdist_group("test-rtl")] if n in RTL else [])
        for n in (*DEVICES, UIO_BOARD)
    ],
)
def shared(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with opened(request.param) as device:
        yield Bench(request.param, device, image_for(request.param))


@pytest.fixture
def bench(shared: Bench) -> Bench:
    shared.device.progress = None
    shared.device.load(shared.image)
    return shared


def test_bytes_are_kept(bench: Bench) -> None:
    at = bench.image.regions["input"].offset
    assert bench.device.read(at, 8) == bytes(8)
    bench.device.write(at + 2, b"bytes")
    assert bench.device.read(at, 9) == b"\0\0bytes\0\0"
    assert bench.device.read(bench.image.size - 3, 3) == bytes(3)


@pytest.mark.parametrize("where", ["before", "across", "behind"])
def test_bytes_outside_the_image(bench: Bench, where: str) -> None:
    size = bench.image.size
    offset = {"before": -1, "across": size - 1, "behind": size}[where]
    with pytest.raises(DeviceError, match=f"not inside the image of {size}"):
        bench.device.write(offset, b"ab")
    with pytest.raises(DeviceError, match=f"not inside the image of {size}"):
        bench.device.read(offset, 2)
    bench.call(IDS)


def test_a_start_while_a_call_runs(bench: Bench) -> None:
    """It is refused, and the call goes on."""
    bench.device.write(bench.image.regions["input"].offset, bench.image.embed(IDS).tobytes())
    bench.device.start(len(IDS), 0)
    with pytest.raises(DeviceError, match="while a call runs"):
        bench.device.start(1, 0)
    bench.device.wait()
    got = bench.logits()
    bench.check_same(bench.call(IDS), got)


def test_a_wait_without_a_call(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(DeviceError, match="without a call"):
            bench.device.wait()
        bench.call(IDS)


@pytest.mark.parametrize(
    ("tokens", "position", "chunk"),
    [
        (0, 0, None),
        (1, CONFIG.max_context, None),
        (2, CONFIG.max_context - 1, None),
        (CONFIG.max_context + 1, 0, None),
        (1, 0, 0),
        (1, 0, CONFIG.chunk + 1),
    ],
)
def test_calls_that_cannot_be(bench: Bench, tokens: int, position: int, chunk: int | None) -> None:
    """Refused at the start, or at the end of the wait where gateware has to find out."""
    with pytest.raises(DeviceError, match=r"(?i)bad.call"):
        bench.device.start(tokens, position, chunk)
        bench.device.wait()
    bench.call(IDS)


def test_a_context_shorter_than_the_configurations(bench: Bench) -> None:
    model = random_model(SPEC.model_copy(update={"context": 20}), seed=6)
    image = image_for(bench.name, model)
    with contextlib.ExitStack() as stack:
        device = bench.device
        if bench.name in TAKES_MODEL:
            device = stack.enter_context(open_device(bench.name, CONFIG, model=model))
        device.load(image)
        device.start(1, 19)
        device.wait()
        for tokens, position in ((1, 20), (2, 19)):
            with pytest.raises(DeviceError, match="room for 20 positions"):
                device.start(tokens, position)


def test_a_second_load_gives_fresh_state(bench: Bench) -> None:
    """Nothing is left of the call before: not its bytes, not its K and V, not the call itself."""
    fresh = bench.call(IDS[:3], 5)  # what is before position 5 reads as zeros
    bench.device.load(bench.image)
    bench.call(IDS)
    bench.device.start(1, 0)
    bench.device.load(bench.image)
    assert not any(bench.logits())
    with pytest.raises(DeviceError, match="without a call"):
        bench.device.wait()
    bench.check_same(bench.call(IDS[:3], 5), fresh)


def test_turns_and_chunks_give_what_one_call_gives(bench: Bench) -> None:
    whole = bench.call(IDS)
    for chunk in (2, CONFIG.chunk):
        bench.device.load(bench.image)
        bench.check_same(bench.call(IDS, 0, chunk), whole)
    bench.device.load(bench.image)
    bench.call(IDS[:5])
    bench.call(IDS[5:6], 5)
    bench.check_same(bench.call(IDS[6:], 6), whole)
    bench.device.load(bench.image)
    assert np.abs(bench.call(IDS[6:], 6) - whole).max() > 0.1  # the turns before do matter


def test_positions_may_go_back(bench: Bench) -> None:
    """A conversation taken up again at an earlier position forgets what came after it."""
    first = bench.call(IDS)
    bench.call(list(reversed(IDS)), len(IDS))
    bench.call([1, 2, 3, 4], 4)
    bench.check_same(bench.call(IDS[4:], 4), first)


def test_the_last_position(bench: Bench) -> None:
    last = CONFIG.max_context - 1
    bench.call(IDS)
    assert np.isfinite(bench.call([7], last)).all()


def test_sessions_choose_the_emulators_tokens(bench: Bench) -> None:
    with open_device("emulator", CONFIG) as emulator:
        expected = Session(emulator, image_for("emulator")).generate(IDS, 4)
    got = Session(bench.device, bench.image).generate(IDS, 4)
    assert got.tokens == expected.tokens
    for a, b in zip(got.logits, expected.logits, strict=True):
        # The emulator's head is in integers of 8 bits, those of the model are not.
        assert np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)) <= (0.05 if not bench.exact else 0)


def test_another_configuration_is_refused(bench: Bench) -> None:
    other = CONFIG.model_copy(update={"name": "other"})
    compiled = (outline if bench.name in TAKES_MODEL else compile_model)(MODEL, other)
    with pytest.raises(UserError, match=r"'other'.*compile the model again"):
        bench.device.load(compiled)
    bench.call(IDS)


def test_progress_ends_with_the_call(bench: Bench) -> None:
    """Devices that can say how far they are count up to the call's tokens."""
    seen: list[tuple[int, int]] = []
    bench.device.progress = lambda done, tokens: seen.append((done, tokens))
    bench.call(IDS, 0, 3)
    if bench.name == "board" or bench.name in RTL:
        assert not seen
    else:
        assert seen == [(3, 9), (6, 9), (9, 9)]


def test_close_may_come_twice(shared: Bench) -> None:
    with opened(shared.name) as device:
        device.load(shared.image)
        device.close()
        device.close()
    unused = opened(shared.name)
    unused.close()
    unused.close()


@pytest.mark.parametrize("name", TAKES_MODEL)
def test_a_device_of_one_model_refuses_another(name: str) -> None:
    other = random_model(SPEC.model_copy(update={"name": "another"}), seed=6)
    with opened(name) as device:
        with pytest.raises(UserError, match=r"'another'.*'contract'"):
            device.load(outline(other, CONFIG))


@pytest.mark.parametrize("name", TAKES_MODEL)
def test_the_residual_stream_of_a_call(name: str) -> None:
    with opened(name) as device:
        bench = Bench(name, device, image_for(name))
        device.load(bench.image)
        with pytest.raises(DeviceError, match="no call has run"):
            device.layers()
        bench.call(IDS, 0, 3)
        first = device.layers()
        kept = first.copy()
        assert (first.dtype, first.shape) == (np.float32, (SPEC.layers, SPEC.hidden))
        bench.call([IDS[0]], 3)
        assert np.array_equal(first, kept)
        assert not np.array_equal(device.layers(), kept)


def test_names() -> None:
    with pytest.raises(KeyError):
        open_device("nosuch", CONFIG)
    for name in TAKES_MODEL:
        with pytest.raises(ValueError, match="needs the model"):
            open_device(name, CONFIG)
    with pytest.raises(ValueError, match="needs a transport"):
        open_device("board", CONFIG)
