"""Random models."""

from __future__ import annotations

import numpy as np

from terntable.host.model import random_model


def test_random_models_repeat(make_spec) -> None:
    a, b, c = (random_model(make_spec(), seed) for seed in (1, 1, 2))
    assert np.array_equal(a.layer(1).linears["q"].trits, b.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(1).linears["q"].trits, c.layer(1).linears["q"].trits)
    assert not np.array_equal(a.layer(0).linears["q"].trits, a.layer(1).linears["q"].trits)
