"""The reference itself: against exact softmax, the emulator, and other ways to cut a prompt."""

import numpy as np
import pytest
from attention_cases import Case, build

from terntable.host.emulator.attention import KvCodes, attend
from terntable.hw.attention.reference import reference
from terntable.hw.attention.shape import AttentionShape
from terntable.hw.config import KV_BLOCK, load_config


def draw(seed: int, tokens: int, position: int, heads: int, kv_heads: int, dims: int):
    rng = np.random.default_rng(seed)
    length = position + tokens

    def codes(*shape):
        return rng.integers(-32767, 32768, shape)

    def scales(*shape):
        return np.exp2(rng.uniform(-16, -13, shape)).astype(np.float32)

    return {
        "q_codes": codes(tokens, heads, dims),
        "q_scales": scales(tokens, heads),
        "k_codes": codes(kv_heads, length, dims),
        "k_scales": scales(kv_heads, length),
        "v_codes": codes(kv_heads, length, dims),
        "v_scales": scales(kv_heads, length),
        "position": position,
    }


def test_close_to_exact_softmax():
    given = draw(1, tokens=3, position=70, heads=4, kv_heads=2, dims=16)
    got = reference(**given).reshape(3, 4, 16)
    for token in range(3):
        for head in range(4):
            n, kv = 71 + token, head // 2
            k = given["k_codes"][kv, :n] * np.float64(given["k_scales"][kv, :n, None])
            v = given["v_codes"][kv, :n] * np.float64(given["v_scales"][kv, :n, None])
            q = given["q_codes"][token, head] * np.float64(given["q_scales"][token, head])
            score = k @ q
            p = np.exp2(score - score.max())
            exact = p @ v / p.sum()
            assert np.abs(got[token, head] - exact).max() < 3e-6 * np.abs(v).max()


def test_chunks_do_not_change_a_row():
    whole = draw(2, tokens=40, position=0, heads=2, kv_heads=1, dims=8)
    expected = reference(**whole)
    for cut in (1, 31, 32, 33):
        tail = whole | {
            "q_codes": whole["q_codes"][cut:],
            "q_scales": whole["q_scales"][cut:],
            "position": cut,
        }
        assert np.array_equal(reference(**tail), expected[cut:])


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_emulator(seed):
    rng = np.random.default_rng(seed)
    kv_heads, per_kv = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    tokens, position = int(rng.integers(1, 8)), int(rng.integers(0, 120))
    given = draw(seed, tokens, position, kv_heads * per_kv, kv_heads, 16)
    if seed % 2:
        given["v_scales"] *= np.exp2(rng.integers(-90, 90, given["v_scales"].shape)).astype("f4")
    assert_emulated(given)


@pytest.mark.parametrize(
    "changes",
    [
        {"q_codes": 0},
        {"q_codes": 32767, "k_codes": 32767, "k_scales": 3e38},
        {"q_codes": 32767, "k_codes": -32767, "q_scales": 3e38, "k_scales": 3e38},
        {"v_codes": -32767, "v_scales": 3e38, "q_codes": 0},
        {"v_scales": 0},
        {"v_scales": 2.0**-125, "q_scales": 0},
    ],
    ids=str,
)
def test_equals_the_emulator_at_extremes(changes):
    given = draw(5, tokens=2, position=4094, heads=2, kv_heads=1, dims=16)
    for name, value in changes.items():
        given[name][:] = value
    assert_emulated(given)


def assert_emulated(given: dict):
    tokens, heads, _ = given["q_codes"].shape
    kv_heads, length, _ = given["k_codes"].shape
    per_kv, position = heads // kv_heads, given["position"]
    padded = -(-length // KV_BLOCK) * KV_BLOCK

    def pad(x):
        return np.pad(x, [(0, 0), (0, padded - length)] + [(0, 0)] * (x.ndim - 2))

    q = given["q_codes"].reshape(tokens, kv_heads, per_kv, 16).transpose(1, 0, 2, 3)
    q_scale = given["q_scales"].reshape(tokens, kv_heads, per_kv).transpose(1, 0, 2)
    got = attend(
        q.reshape(kv_heads, -1, 16).astype(np.float64),
        q_scale.reshape(kv_heads, -1),
        KvCodes(
            pad(given["k_codes"]).astype(np.float64),
            pad(given["v_codes"]).astype(np.float64),
            pad(given["k_scales"]),
            pad(given["v_scales"]),
        ),
        position + np.repeat(np.arange(tokens), per_kv),
    )
    got = got.reshape(kv_heads, tokens, per_kv, 16).transpose(1, 0, 2, 3).reshape(tokens, -1)
    assert np.array_equal(got.view(np.uint32), reference(**given).view(np.uint32))


def test_case_builder_is_deterministic():
    case = Case(tokens=2, position=31)
    a, b = build(load_config("test"), case), build(load_config("test"), case)
    assert np.array_equal(a.dram, b.dram)
    assert np.array_equal(a.expected, b.expected)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="max_rows is 4: make it at least 8"):
        AttentionShape.of(load_config("test"), max_rows=4)
