"""The byte code of ternary weights."""

import itertools

import numpy as np
import pytest

from terntable.hw.linear import trits


def test_every_five_digits_have_their_own_byte() -> None:
    digits = np.array(list(itertools.product(range(3), repeat=5)), np.uint8)
    code = trits.encode_bytes(digits)
    assert len(set(code.tolist())) == 243
    assert (trits.decode_bytes(code) == digits.reshape(-1)).all()
    for five, byte in zip(digits.tolist(), code.tolist(), strict=True):
        assert trits.encode_byte(tuple(five)) == byte
        assert trits.decode_byte(byte) == tuple(five)


def test_unused_bytes_decode_to_digits() -> None:
    assert trits.decode_bytes(np.arange(256, dtype=np.uint8)).max() == 2


def test_padding_is_the_trit_zero() -> None:
    assert trits.decode_bytes(trits.encode_bytes(np.array([2, 0]))).tolist() == [2, 0, 1, 1, 1]


def test_digit_out_of_range() -> None:
    with pytest.raises(ValueError, match="digit 3"):
        trits.encode_bytes(np.array([0, 3]))


def test_order() -> None:
    """Tile, K tile, word, row, input."""
    digits = np.arange(6 * 4).reshape(6, 4)
    order = trits.order_digits(digits, tile_words=2, rows=2, tile_inputs=2)
    first = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]
    assert order.tolist() == [*first, 16, 17, 20, 21, 18, 19, 22, 23]


def test_order_pads_with_the_trit_zero() -> None:
    order = trits.order_digits(np.zeros((1, 1), int), tile_words=4, rows=2, tile_inputs=2)
    assert order.tolist() == [0, 1, 1, 1]
