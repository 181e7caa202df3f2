"""Random models."""

from __future__ import annotations

import numpy as np
import pytest

from terntable.host.model import load_model, random_model
from terntable.hw.errors import UserError


def test_random_models_repeat(make_spec) -> None:
    a, b, c = (random_model(make_spec(), seed) for seed in (1, 1, 2))
    assert np.array_equal(a.layer(1).linears["q"].trits, b.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(1).linears["q"].trits, c.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(0).linears["q"].trits, a.layer(1).linears["q"].trits)


def test_random_weights_of_a_published_shape() -> None:
    model = load_model("random:bitnet-0.73b")
    assert model.spec.ternary_weights == 679_477_248
    assert model.layer(0).linears["q"].trits.shape == (1536, 1536)
    with pytest.raises(UserError, match=r"unknown shape 'bitnet-9b': choose from bitnet-0\.73b, "):
        load_model("random:bitnet-9b")
