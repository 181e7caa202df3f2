"""Choosing the next token from logits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from terntable.hw.errors import UserError


@dataclass
class Sampler:
    """Greedy when `temperature` is None or 0 (ties: lowest id), else softmax sampling.

    `top_k` keeps the k likeliest tokens, `top_p` the fewest that hold that much probability, in
    that order. The same seed gives the same tokens for the same logits.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        t = self.temperature
        if t is not None and not (np.isfinite(t) and t >= 0):
            raise UserError(f"temperature is {t}: make it 0 (greedy) or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top-k is {self.top_k}: make it at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top-p is {self.top_p}: make it above 0 and at most 1")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}: make it 0 or above")
        if not t and (self.top_k is not None or self.top_p is not None):
            raise UserError("top-k and top-p need a temperature: sampling is greedy without one")
        self._rng = np.random.default_rng(self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken, the lowest id on a tie: a device's own argmax."""
        return not self.temperature

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """The next id from logits [vocab]."""
        if not self.temperature:
            return int(np.argmax(logits))
        order = np.argsort(-logits, kind="stable")
        if self.top_k is not None:
            order = order[: self.top_k]
        below = logits[order].astype(np.float64) - float(logits[order[0]])
        with np.errstate(over="ignore"):  # a tiny temperature: minus infinity is meant
            p = np.exp(below / self.temperature)
        p /= p.sum()
        if self.top_p is not None:
            keep = int(np.searchsorted(np.cumsum(p), self.top_p)) + 1
            order, p = order[:keep], p[:keep] / p[:keep].sum()
        return int(order[self._rng.choice(len(order), p=p)])
