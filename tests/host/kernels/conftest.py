"""Where kernels run in these tests, and how far results may be apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.devices.triton import choose_place  # noqa: E402


@pytest.fixture(scope="session")
def place() -> torch.device:
    """CUDA where there is a GPU, else the CPU: there kernels are interpreted."""
    return choose_place()


@pytest.fixture
def relative() -> Callable[[torch.Tensor, torch.Tensor], float]:
    """Root mean square of a - b relative to that of b; 0 where both are zeros."""

    def error(a: torch.Tensor, b: torch.Tensor) -> float:
        a, b = a.double().cpu(), b.double().cpu()
        difference = (a - b).square().mean().sqrt()
        return float(difference / b.square().mean().sqrt()) if difference else 0.0

    return error
