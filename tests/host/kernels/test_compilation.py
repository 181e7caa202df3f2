"""The kernels as machine code of GPUs that are not there: all of a model's, down to ptxas.

The interpreter takes what no GPU would; this is what says that they are GPU code, and that it is
the code that was meant: int8 and binary16 tensor cores, 16-byte copies, no fused roundings.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
triton = pytest.importorskip("triton")

KERNELS = {
    "_decode",
    "_decode_span",
    "_head_matvec",
    "_merge",
    "_norm_quant",
    "_prefill",
    "_prefill_attention",
    "_rope_cache",
}
INT8_MMA = r"mma\.sync\.\S*m16n8k32\S*\.s32\.s8\.s8\.s32"
INT8_WGMMA = r"wgmma\.mma_async\.\S*k32\.s32\.s8\.s8"
HALF_MMA = r"mma\.sync\.\S*\.f32\.f16\.f16\.f32"
HALF_WGMMA = r"wgmma\.mma_async\.\S*k16\.f32\.f16\.f16"
TENSOR_CORES = {
    80: {"_prefill": INT8_MMA, "_prefill_attention": HALF_MMA},
    90: {"_prefill": INT8_WGMMA, "_prefill_attention": HALF_WGMMA},
}
"""What each architecture has to use; the kernels for few rows use mma.sync on both."""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, list[str]]]:
    """PTX of all variants by architecture and kernel."""
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this triton has no compiler for NVIDIA GPUs")
    folder = tmp_path_factory.mktemp("ptx")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    script = Path(__file__).with_name("compile_for_gpus.py")
    run = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    print(run.stdout)
    found: dict[int, dict[str, list[str]]] = {}
    for file in sorted(folder.glob("*/*.ptx")):
        kernels = found.setdefault(int(file.parent.name), {})
        kernels.setdefault(file.stem.rsplit("-", 1)[0], []).append(file.read_text())
    return found


def test_every_kernel_compiles(code: dict[int, dict[str, list[str]]]) -> None:
    assert set(code) == {80, 90}
    for kernels in code.values():
        assert set(kernels) == KERNELS


def test_products_are_on_tensor_cores(code: dict[int, dict[str, list[str]]]) -> None:
    for architecture, kernels in code.items():
        wanted = {"_decode": INT8_MMA, "_decode_span": HALF_MMA} | TENSOR_CORES[architecture]
        for name, pattern in wanted.items():
            for ptx in kernels[name]:
                assert re.search(pattern, ptx), (architecture, name)


def test_weights_and_activations_are_copied_by_16_bytes(
    code: dict[int, dict[str, list[str]]],
) -> None:
    for kernels in code.values():
        for name in ("_prefill", "_decode"):
            for ptx in kernels[name]:
                widths = re.findall(r"cp\.async\.c[ag]\.\S* [^;]*?, (0x[0-9a-f]+)", ptx)
                assert widths and set(widths) == {"0x10"}


def test_weights_are_unpacked_by_masks_alone(code: dict[int, dict[str, list[str]]]) -> None:
    """On the newer architecture four weights an instruction: masks of four equal bytes."""
    for name in ("_prefill", "_decode"):
        for ptx in code[90][name]:
            masks = {int(m) & 0xFFFFFFFF for m in re.findall(r"and\.b32 [^;]*, (-?\d+);", ptx)}
            assert {0x03030303, 0x0C0C0C0C, 0x30303030, 0xC0C0C0C0} <= masks


def test_quantisation_rounds_every_operation(code: dict[int, dict[str, list[str]]]) -> None:
    """The sum that rounds to an integer must not be fused with the product before it."""
    for kernels in code.values():
        for name in ("_norm_quant", "_rope_cache"):
            assert not any(re.search(r"\bfma\.", ptx) for ptx in kernels[name])
        assert all("0f4B400000" in ptx for ptx in kernels["_norm_quant"])
