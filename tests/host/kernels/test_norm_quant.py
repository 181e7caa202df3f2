"""Norm, gain, gate and quantisation in one kernel, against the published operations."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.kernels.norm_quant import norm_quant  # noqa: E402
from terntable.host.kernels.ternary import QuantisedRows, quarter  # noqa: E402
from terntable.host.reference.operations import activate, quantise, rms_norm  # noqa: E402

TOLERANCE = 1e-4
NEAR_TIE = 1e-3
"""A code may turn where its value is as near to a tie: statistics are summed in another order."""


def check(out: QuantisedRows, row: torch.Tensor) -> None:
    """`out` against the published quantisation of rows [tokens, K]."""
    columns = row.shape[1]
    expected, scale = quantise(row)
    codes = out.codes.cpu()
    assert codes.shape[1] == 4 * quarter(columns) and not codes[:, columns:].any()
    value = row.double() * scale.double()
    from_tie = ((value - value.floor()) - 0.5).abs()
    wrong = codes[:, :columns] != expected
    assert (codes[:, :columns] - expected).abs().max() <= 1
    assert (from_tie[wrong] < NEAR_TIE).all() and wrong.sum() <= 1e-3 * wrong.numel()
    assert torch.allclose(out.factor.cpu(), 1 / scale[:, 0], rtol=1e-5, atol=0)
    low = codes[:, : 3 * quarter(columns)].sum(1, dtype=torch.int32)
    assert torch.equal(out.excess.cpu(), low)
    # What the codes stand for, where none has turned.
    turned = wrong.any(1)
    back = codes[:, :columns] * out.factor.cpu()[:, None]
    error = (back - expected / scale)[~turned].abs().amax() if (~turned).any() else 0
    assert error <= TOLERANCE * (expected / scale).abs().max()


@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("columns", [132, 260, 1536])
@pytest.mark.parametrize("gained", [False, True])
@pytest.mark.parametrize("eps", [None, 1e-5])
def test_rows(
    tokens: int, columns: int, gained: bool, eps: float | None, place: torch.device
) -> None:
    torch.manual_seed(tokens * columns)
    x = torch.randn(tokens, columns) * torch.logspace(-3, 4, tokens)[:, None]
    gain = torch.rand(columns) + 0.5 if gained else None
    row = x if eps is None else rms_norm(x, torch.ones(columns), eps)
    out = norm_quant(x.to(place), None if gain is None else gain.to(place), eps)
    check(out, row if gain is None else row * gain)


@pytest.mark.parametrize("tokens", [1, 17])
@pytest.mark.parametrize("gate", ["relu2", "silu"])
@pytest.mark.parametrize("eps", [None, 1e-5])
def test_gated_rows(tokens: int, gate: str, eps: float | None, place: torch.device) -> None:
    torch.manual_seed(tokens)
    halves = 20 * torch.randn(2, tokens, 260)
    x = torch.cat(list(halves), 1)
    gain = torch.rand(260) + 0.5
    row = activate(halves[0], gate) * halves[1]
    out = norm_quant(x.to(place), gain.to(place), eps, gate)
    check(out, row * gain if eps is None else rms_norm(row, gain, eps))


def test_ties_go_to_the_even_code(place: torch.device) -> None:
    """The scale is exactly 1 or 2, so that every value lies at a tie."""
    ties = torch.arange(-126, 127).float() + 0.5
    x = torch.cat([ties, torch.tensor([127.0])])
    x = torch.stack([x, x / 2])
    out = norm_quant(x.to(place))
    assert torch.equal(out.codes.cpu()[:, :254].float(), x[0].round().expand(2, -1))
    assert torch.equal(out.factor.cpu(), torch.tensor([1, 0.5]))


@pytest.mark.parametrize("eps", [None, 1e-6])
def test_extremes(eps: float | None, place: torch.device) -> None:
    """Zeros; less than the least absmax; one large number; magnitudes near binary32's limits."""
    x = torch.zeros(6, 132)
    x[1] = 4e-6 * torch.linspace(-1, 1, 132)
    x[2, 7] = -3e4
    x[3] = 1e18 * torch.linspace(-1, 1, 132)
    x[4] = 1e-30
    x[5] = -127
    row = x if eps is None else rms_norm(x, torch.ones(132), eps)
    out = norm_quant(x.to(place), None, eps)
    check(out, row)
    assert not out.codes.cpu()[0].any() and torch.isfinite(out.factor.cpu()).all()
    if eps is None:
        assert out.codes.cpu()[1].abs().max() == 51  # 4e-6 * 127 / 1e-5
        assert (out.codes.cpu()[5, :132] == -127).all()


def test_dead_channels_and_overflowing_gates(place: torch.device) -> None:
    """Squared ReLU far beyond binary16, SiLU of large negative numbers, gains of 1e-32."""
    gate = torch.linspace(-3e4, 3e4, 132).expand(2, -1)
    up = torch.linspace(5, -5, 132).expand(2, -1)
    gain = torch.ones(132)
    gain[::3] = 1e-32
    x = torch.cat([gate, up], 1)
    for kind in ("relu2", "silu"):
        out = norm_quant(x.to(place), gain.to(place), 1e-5, kind)
        check(out, rms_norm(activate(gate, kind) * up, gain, 1e-5))
