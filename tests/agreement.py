"""Calls on two devices that must agree in every bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from terntable.host.devices.base import Device
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.image import Image
from terntable.host.session import Session


def kv_cache(device: Device, image: Image) -> bytes:
    """The device's KV cache."""
    region = image.regions["kv"]
    return device.read(region.offset, region.size)


def assert_same(
    image: Image, rtl: Device, calls: Sequence[int], chunk: int | None = None, seed: int = 0
) -> None:
    """Run calls of these numbers of random tokens, one after the other, on `rtl` and on the
    emulator: logits, their argmax and the KV cache are equal after each."""
    rng = np.random.default_rng([seed, len(calls)])
    with EmulatorDevice(image.config) as emulator:
        here, there = Session(rtl, image), Session(emulator, image)
        for number, n in enumerate(calls):
            ids = rng.integers(0, image.spec.vocab, n).tolist()
            a, cost = here.call(ids, chunk)
            b, expected = there.call(ids, chunk)
            where = f"call {number} of {n} tokens"
            np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32), err_msg=where)
            assert cost.argmax == expected.argmax == int(np.argmax(b)), where
            assert np.float32(cost.argmax_logit) == b.max(), where
            assert kv_cache(rtl, image) == kv_cache(emulator, image), where
            assert cost.cycles is not None and cost.cycles > 0
