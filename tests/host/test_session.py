"""Sessions: turns on a kept cache, ends of generation, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.devices.emulator import EmulatorDevice
from terntable.host.fit import derive_config
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.host.sampling import Sampler
from terntable.host.session import Session
from terntable.hw.errors import UserError


@pytest.fixture
def image(make_spec: Callable[..., ModelSpec]) -> Image:
    spec = make_spec()
    return compile_model(random_model(spec, seed=4), derive_config(spec))


def open_session(image: Image) -> Session:
    return Session(EmulatorDevice(image.config), image)


def bits(logits: np.ndarray) -> bytes:
    return logits.tobytes()


def test_two_turns_are_one_conversation(image: Image) -> None:
    first, second = [5, 9, 2, 7], [11, 3, 8]
    session = open_session(image)
    a = session.generate(first, 3)
    b = session.generate(second, 3)
    assert session.position == 4 + 3 + 3 + 2  # the last token's K and V are not needed yet

    whole = open_session(image).generate(first + a.tokens + second, 3)
    assert b.tokens == whole.tokens
    assert bits(b.logits_array(50)) == bits(whole.logits_array(50))


def test_a_turn_without_new_tokens_only_fills_the_cache(image: Image) -> None:
    session = open_session(image)
    nothing = session.generate([5, 9], 0)
    assert (nothing.tokens, nothing.logits_array(50).shape) == ([], (0, 50))
    then = session.generate([2], 2)
    whole = open_session(image).generate([5, 9, 2], 2)
    assert bits(then.logits_array(50)) == bits(whole.logits_array(50))


def test_an_empty_prompt_goes_on_where_the_last_turn_ended(image: Image) -> None:
    session = open_session(image)
    tokens = session.generate([5, 9], 2).tokens + session.generate([], 2).tokens
    assert tokens == open_session(image).generate([5, 9], 4).tokens
    with pytest.raises(UserError, match="empty"):
        open_session(image).generate([], 1)


def test_reset_forgets(image: Image) -> None:
    session = open_session(image)
    first = session.generate([5, 9, 2], 3)
    session.reset()
    assert bits(session.generate([5, 9, 2], 3).logits_array(50)) == bits(first.logits_array(50))


def test_an_end_of_sequence_id_ends_generation(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec()
    config = derive_config(spec)
    free = open_session(compile_model(random_model(spec, seed=4), config)).generate([5, 9], 8)
    assert not free.stopped
    end = free.tokens[-1]
    at = free.tokens.index(end)
    ending = spec.model_copy(update={"eos_ids": (end,)})
    got = open_session(compile_model(random_model(ending, seed=4), config)).generate([5, 9], 8)
    assert got.stopped
    assert got.tokens == free.tokens[: at + 1]
    assert len(got.decode) == at


def test_tokens_come_one_by_one_and_sampling_repeats(image: Image) -> None:
    seen: list[int] = []
    got = open_session(image).generate([5], 6, Sampler(1.0, seed=2), seen.append)
    assert seen == got.tokens
    assert open_session(image).generate([5], 6, Sampler(1.0, seed=2)).tokens == seen


def test_a_context_is_used_to_its_end_and_no_further(image: Image) -> None:
    context = image.context
    session = open_session(image)
    # The last token is not run: its K and V have no use.
    assert len(session.generate([1] * (context - 1), 2).tokens) == 2
    with pytest.raises(UserError, match=f"context is {context}"):
        session.generate([1], 1)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "words"),
    [
        ([50], 1, "id 50 is out of range"),
        ([-1], 1, "id -1 is out of range"),
        ([1], -1, "max-tokens is -1"),
        ([1], 10**9, "the context is"),
        ([1] * 500, 1, "500 prompt tokens"),
    ],
)
def test_refusals_run_nothing(image: Image, prompt: list[int], max_tokens: int, words: str) -> None:
    session = open_session(image)
    with pytest.raises(UserError, match=words):
        session.generate(prompt, max_tokens)
    assert session.position == 0


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(temperature=0.8, seed=3)])
def test_logits_that_nobody_wants_are_not_read(image: Image, sampler: Sampler) -> None:
    """The same tokens without keeping logits; only sampling at a temperature still reads them."""
    kept = open_session(image).generate([5, 9, 2], 4, Sampler(sampler.temperature, seed=3))
    session = open_session(image)
    read, reads = session.device.read, []

    def counted(offset: int, size: int) -> bytes:
        reads.append(size)
        return read(offset, size)

    session.device.read = counted  # type: ignore[method-assign]
    got = session.generate([5, 9, 2], 4, sampler, keep_logits=False)
    assert got.tokens == kept.tokens
    assert got.logits == []
    assert reads == ([] if sampler.greedy else [4 * 50] * 4)
