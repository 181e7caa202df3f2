"""Compile the kernels for GPUs that are not there: python compile_for_gpus.py FOLDER [--all]

Runs a model's prefill and decode with launches that stop after compilation, down to machine code
by the ptxas that comes with triton. FOLDER receives ARCH/KERNEL-N.ptx. Without --all only the
first configuration of each tuned kernel is compiled. Prints a line for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.autotuner import Autotuner
from triton.runtime.driver import driver
from triton.runtime.jit import KernelInterface

from terntable.host.devices.triton import KV_KINDS
from terntable.host.kernels import decode_attention
from terntable.host.kernels.decoder import TernaryDecoder
from terntable.host.kernels.ternary import PackedMatrix, QuantisedRows
from terntable.host.kernels.ternary_matmul import ternary_matmul
from terntable.host.kernels.tuning import INTERPRETED
from terntable.host.model import ModelSpec, random_model

ARCHITECTURES = (80, 90)
SPEC = ModelSpec(
    name="compiled", layers=1, hidden=1024, ffn=1536, heads=10, kv_heads=2, head_dim=96, vocab=64,
    context=512, rope_theta=1e4, eps=1e-5, activation="silu",
)  # fmt: skip
SUB_NORMS = {"activation": "relu2", "attn_sub_norm": True, "ffn_sub_norm": True}


class AbsentGpu:
    """As much of a driver as compiling takes."""

    architecture = 0

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


def main(folder: Path, everything: bool) -> None:
    assert not INTERPRETED, "TRITON_INTERPRET is set"
    gpu = AbsentGpu()
    driver.set_active(gpu)
    decode_attention._programs = lambda device: 264
    seen: set[str] = set()

    def launch(kernel: Any, grid: Any) -> Callable[..., None]:
        def compile_only(*args: Any, **options: Any) -> None:
            if isinstance(kernel, Autotuner) and not everything:
                kernel.configs = kernel.configs[:1]
            compiled = kernel.warmup(*args, grid=grid, **options)
            for one in compiled if isinstance(compiled, list) else [compiled]:
                if one.hash in seen:
                    continue
                seen.add(one.hash)
                assert one.asm["cubin"]
                name = one.metadata.name
                to = folder / str(gpu.architecture)
                to.mkdir(exist_ok=True)
                (to / f"{name}-{len(list(to.glob(f'{name}-*')))}.ptx").write_text(one.asm["ptx"])
                print(
                    f"sm_{gpu.architecture} {name}: {one.metadata.num_warps} warps,"
                    f" {one.metadata.shared} bytes of shared memory"
                )

        return compile_only

    KernelInterface.__getitem__ = launch
    place = torch.device("cpu")
    for gpu.architecture in ARCHITECTURES:
        for changes in ({}, SUB_NORMS):
            spec = SPEC.model_copy(update=changes)
            decoder = TernaryDecoder(random_model(spec), place)
            for kind in KV_KINDS:
                decoder.reset(spec.context, kind)
                for tokens in (128, 1):
                    x = decoder.forward(torch.zeros(tokens, spec.hidden), 300)
                    decoder.logits(x[-1])
        for dtype in (torch.float16, torch.bfloat16):
            decoder._head = decoder._head.to(dtype)
            decoder.logits(x[-1])
        for tokens in (128, 1):
            matrix = PackedMatrix.of([random_model(SPEC).layer(0).linears["q"]], place)
            ternary_matmul(QuantisedRows.empty(tokens, SPEC.hidden, place), matrix, sums=True)
    print(f"{len(seen)} kernels by triton {triton.__version__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--all" in sys.argv[2:])
