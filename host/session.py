"""A conversation with a device: prefill, decode, and the KV cache between turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from terntable.hw.errors import UserError

from .devices.base import CallResult, Device
from .image import Image
from .sampling import Sampler

F32 = NDArray[np.float32]


@dataclass
class Generation:
    """One turn: what went in, what came out, what it cost."""

    prompt_tokens: list[int]
    tokens: list[int] = field(default_factory=list)
    logits: list[F32] = field(default_factory=list)
    prefill: CallResult | None = None
    decode: list[CallResult] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    stopped: bool = False

    def logits_array(self, vocab: int) -> F32:
        """float32 [steps, vocab]: the distribution that each new token was chosen from."""
        if not self.logits:
            return np.zeros((0, vocab), np.float32)
        return np.stack(self.logits)


class Session:
    """Runs one image on one device. The KV cache of earlier turns is kept until `reset`.

    The device must stay open; the session does not close it.
    """

    def __init__(self, device: Device, image: Image) -> None:
        self.device = device
        self.image = image
        self.position = 0
        self._pending: list[int] = []  # chosen, but its K and V are not in the cache yet
        device.load(image)

    def reset(self) -> None:
        """Forget the conversation."""
        self.position = 0
        self._pending = []

    def check(self, prompt: list[int], max_tokens: int) -> None:
        """Refuse what can't run, before anything runs. Raises UserError."""
        check_request(self.image, self.position + len(self._pending), prompt, max_tokens)

    def call(self, ids: list[int], chunk: int | None = None) -> tuple[F32, CallResult]:
        """Append `ids` to the cache and return the logits [vocab] after the last one."""
        result = self.advance(ids, chunk)
        return self.logits(), result

    def advance(self, ids: list[int], chunk: int | None = None) -> CallResult:
        """Append `ids` to the cache. Their logits stay on the device."""
        if not ids:
            raise UserError("no token to run: give at least one")
        image = self.image
        rows = image.embed(ids).tobytes()
        self.device.write(image.regions["input"].offset, rows)
        self.device.start(len(ids), self.position, chunk)
        result = self.device.wait()
        self.position += len(ids)
        return result

    def logits(self) -> F32:
        """The logits [vocab] that the last call has left on the device."""
        vocab = self.image.spec.vocab
        raw = self.device.read(self.image.regions["logits"].offset, 4 * vocab)
        return np.frombuffer(raw, np.float32, vocab).copy()

    def generate(
        self,
        prompt: list[int],
        max_tokens: int,
        sampler: Sampler | None = None,
        on_token: Callable[[int], None] | None = None,
        chunk: int | None = None,
        keep_logits: bool = True,
    ) -> Generation:
        """Prefill `prompt`, then decode up to `max_tokens` tokens or an end-of-sequence id.

        Without `keep_logits` the result has none, and greedy sampling reads none: the device has
        found the largest one itself.
        """
        result = Generation(list(prompt))
        sampler = sampler or Sampler()
        for _ in self.steps(result, max_tokens, sampler, on_token, chunk, keep_logits):
            pass
        return result

    def steps(
        self,
        result: Generation,
        max_tokens: int,
        sampler: Sampler,
        on_token: Callable[[int], None] | None = None,
        chunk: int | None = None,
        keep_logits: bool = True,
    ) -> Iterator[int]:
        """`generate` one token at a time: yields each id and fills `result`."""
        self.check(result.prompt_tokens, max_tokens)
        ids = self._pending + result.prompt_tokens
        if not ids:
            raise UserError("the prompt is empty: give at least one token")
        ends = self.image.spec.eos_ids
        for step in range(max(max_tokens, 1)):
            began = time.perf_counter()
            cost = self.advance(ids, chunk)
            logits = self.logits() if keep_logits or not sampler.greedy else None
            took = time.perf_counter() - began
            if step == 0:
                result.prefill, result.prefill_seconds = cost, took
            else:
                result.decode.append(cost)
                result.decode_seconds += took
            self._pending = []
            if max_tokens == 0:
                return
            token = cost.argmax if logits is None else sampler(logits)
            if logits is not None and keep_logits:
                result.logits.append(logits)
            result.tokens.append(token)
            self._pending = [token]
            ids = self._pending
            if on_token is not None:
                on_token(token)
            yield token
            if token in ends:
                result.stopped = True
                return


def check_ids(ids: list[int], vocab: int) -> None:
    """Raise UserError unless every id is in 0..vocab-1."""
    for token in ids:
        if not 0 <= token < vocab:
            raise UserError(f"prompt id {token} is out of range: the vocabulary has {vocab} ids")


def check_request(image: Image, used: int, prompt: list[int], max_tokens: int) -> None:
    """Raise UserError unless `prompt` and `max_tokens` more fit behind `used` positions."""
    check_ids(prompt, image.spec.vocab)
    if max_tokens < 0:
        raise UserError(f"max-tokens is {max_tokens}: make it 0 or above")
    need = used + len(prompt) + max(max_tokens - 1, 0)
    if need > image.context:
        raise UserError(
            f"{len(prompt)} prompt tokens and max-tokens {max_tokens}"
            + (f" after {used} kept" if used else "")
            + f" need {need} positions: the context is {image.context}"
        )
