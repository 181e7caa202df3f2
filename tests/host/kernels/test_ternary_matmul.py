"""The ternary product: the emulator's integer sums, dequantised as the published linear does."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from terntable.host.emulator.matrix import Matrix  # noqa: E402
from terntable.host.kernels.ternary import (  # noqa: E402
    PackedMatrix,
    QuantisedRows,
    pack,
    quarter,
)
from terntable.host.kernels.ternary_matmul import DECODE_TOKENS, ternary_matmul  # noqa: E402
from terntable.host.model import TernaryLinear  # noqa: E402

TOLERANCE = 1e-4


def rows_of(codes: np.ndarray, place: torch.device) -> QuantisedRows:
    """int8 codes [tokens, K] as the quantising kernel leaves them, with factors 1, 1/2, 1/3, ..."""
    tokens, columns = codes.shape
    out = QuantisedRows.empty(tokens, columns, place)
    size = quarter(columns)
    wide = np.zeros((tokens, 4 * size), np.int8)
    wide[:, :columns] = codes
    out.codes.copy_(torch.from_numpy(wide))
    out.factor.copy_(1 / torch.arange(1, tokens + 1))
    out.excess.copy_(torch.from_numpy(wide[:, : 3 * size].sum(1, dtype=np.int32)))
    return out


def emulated(trits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return Matrix(trits, 1).dot(codes.astype(np.float32)).astype(np.int64)


@pytest.mark.parametrize("columns", [1, 63, 64, 132, 260, 1536])
def test_packed_bytes_hold_the_trits(columns: int) -> None:
    trits = np.random.default_rng(columns).integers(-1, 2, (5, columns)).astype(np.int8)
    packed = pack(trits).view(np.uint8)
    size = quarter(columns)
    assert packed.shape == (5, size) and size % 16 == 0 and 4 * size >= columns
    fields = np.stack([packed >> 2 * i & 3 for i in range(4)], 1).astype(np.int8)
    fields[:, :3] -= 1
    fields[:, 3] = np.where(fields[:, 3] == 3, -1, fields[:, 3])
    unpacked = fields.reshape(5, 4 * size)
    assert np.array_equal(unpacked[:, :columns], trits)
    assert not unpacked[:, columns:].any()


@pytest.mark.parametrize("tokens", [1, 2, 17, DECODE_TOKENS, 70])
@pytest.mark.parametrize(("rows", "columns"), [(40, 132), (515, 260), (96, 1536), (3, 5)])
def test_sums_are_the_emulators(tokens: int, rows: int, columns: int, place: torch.device) -> None:
    rng = np.random.default_rng([tokens, rows])
    trits = rng.integers(-1, 2, (rows, columns)).astype(np.int8)
    codes = rng.integers(-128, 128, (tokens, columns)).astype(np.int8)
    matrix = PackedMatrix.of([TernaryLinear(trits, np.float32(1))], place)
    sums = ternary_matmul(rows_of(codes, place), matrix, sums=True)
    assert sums.dtype == torch.int32
    assert np.array_equal(sums.cpu().numpy(), emulated(trits, codes))


@pytest.mark.parametrize("tokens", [2, 17])
@pytest.mark.parametrize("code", [-128, -127, 0, 127])
def test_sums_of_extremes(code: int, tokens: int, place: torch.device) -> None:
    """The largest sums of a wide matrix, with all of one sign and with all trits zero."""
    columns = 9000
    trits = np.array([[-1], [0], [1]], np.int8).repeat(columns, 1)
    codes = np.full((tokens, columns), code, np.int8)
    matrix = PackedMatrix.of([TernaryLinear(trits, np.float32(1))], place)
    sums = ternary_matmul(rows_of(codes, place), matrix, sums=True).cpu().numpy()
    assert np.array_equal(sums, [[-code * columns, 0, code * columns]] * tokens)


@pytest.mark.parametrize("tokens", [1, 17])
@pytest.mark.parametrize("added", [False, True])
def test_dequantised(tokens: int, added: bool, place: torch.device, relative) -> None:
    """Matrices of one input, one of them with three scales, with and without a residual."""
    rng = np.random.default_rng(tokens)
    linears = [
        TernaryLinear(rng.integers(-1, 2, (rows, 132)).astype(np.int8), scale)
        for rows, scale in (
            (36, np.array([0.5, 3, 0.02], np.float32)),
            (20, np.float32(0.7)),
        )
    ]
    codes = rng.integers(-128, 128, (tokens, 132)).astype(np.int8)
    x = rows_of(codes, place)
    residual = torch.from_numpy(rng.standard_normal((tokens, 56)).astype(np.float32)).to(place)
    kept = residual.clone()
    y = ternary_matmul(x, PackedMatrix.of(linears, place), residual if added else None)
    dense = torch.from_numpy(np.concatenate([linear.dense() for linear in linears]))
    expected = torch.from_numpy(codes).float() @ dense.T * x.factor.cpu()[:, None]
    assert relative(y, expected + kept.cpu() if added else expected) < TOLERANCE
    assert torch.equal(residual, kept)
