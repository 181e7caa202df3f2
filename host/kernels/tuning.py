"""How kernels are launched: tuned on a GPU, in one fixed shape by the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
from triton.runtime.interpreter import InterpretedFunction

INTERPRETED = isinstance(triton.language.cdiv, InterpretedFunction)
"""Whether triton was imported to interpret kernels rather than to compile them."""

EXACT = {"enable_fp_fusion": False}
"""Launch option: every product and sum is rounded by itself, as the published order of
operations is (a fused multiply-add would move values that lie at a rounding tie)."""
FUSED = {"enable_fp_fusion": True}
"""Launch option: products may be added unrounded."""

Prune = Callable[..., list[triton.Config]]


def tuned(
    configs: list[triton.Config],
    interpreted: triton.Config,
    key: list[str],
    prune: Prune | None = None,
) -> Callable[[Any], Any]:
    """Decorator: the fastest of `configs` for each value of the arguments named in `key`, measured
    at the first launch and kept on disk. Under the interpreter it is `interpreted`, with large
    blocks: a program costs milliseconds there, however much it does.

    `prune` leaves out the configurations that a launch's shape has no use for.
    """
    return triton.autotune(
        configs=[interpreted] if INTERPRETED else configs,
        key=key,
        prune_configs_by={"early_config_prune": prune} if prune else None,
        cache_results=True,
    )


def size_class(n: int) -> int:
    """The least power of two that is at least n: shapes of one class are tuned together."""
    return triton.next_power_of_2(n)
