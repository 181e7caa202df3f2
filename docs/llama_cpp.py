"""How fast llama.cpp runs a published shape with random ternary weights, for the README.

    pip install xllamacpp==2026.10.11549 'terntable[import]'
    python docs/llama_cpp.py bitnet-0.73b

The weights are TQ2_0, llama.cpp's faster ternary type, the embedding (and head) F16. It quantises
activations a block of 256 at a time, so its logits are not those of the model as published.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

from terntable.host.model import Model, ModelSpec, random_model
from terntable.host.named_shapes import named_shape

NAMES = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm",
    "attn_sub_norm": "attn_sub_norm", "ffn_sub_norm": "ffn_sub_norm",
}  # fmt: skip


def write(path: Path, model: Model) -> None:
    """The model as a GGUF file of architecture `bitnet`, with a made-up vocabulary."""
    spec: ModelSpec = model.spec
    writer = gguf.GGUFWriter(path, "bitnet")
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.eps)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_context_length(spec.context)
    writer.add_vocab_size(spec.vocab)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{n}" for n in range(spec.vocab)])
    writer.add_token_scores([0.0] * spec.vocab)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * spec.vocab)
    writer.add_tensor("token_embd.weight", model.embedding.astype(np.float16))
    writer.add_tensor("output_norm.weight", model.final_gain)
    kind = gguf.GGMLQuantizationType.TQ2_0
    for n in range(spec.layers):
        layer = model.layer(n)
        for name, linear in layer.linears.items():
            data = gguf.quantize(linear.dense(), kind)
            writer.add_tensor(f"blk.{n}.{NAMES[name]}.weight", data, raw_dtype=kind)
        for name, gain in layer.gains.items():
            writer.add_tensor(f"blk.{n}.{NAMES[name]}.weight", gain)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape")
    parser.add_argument("--prefill", type=int, default=128)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    spec = named_shape(args.shape)
    threads = len(os.sched_getaffinity(0))
    tokens = np.random.default_rng(0).integers(0, spec.vocab, args.prefill).tolist()
    params = xllamacpp.CommonParams()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx = args.prefill + args.decode + 1
    params.n_batch = params.n_ubatch = args.prefill
    params.n_parallel = 1
    params.warmup = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(path, random_model(spec))
        params.model.path = str(path)
        server = xllamacpp.Server(params)
        request = {
            "prompt": tokens, "n_predict": args.decode, "temperature": 0.0, "ignore_eos": True,
            "cache_prompt": False,
        }  # fmt: skip
        runs = [server.handle_completions(request)["timings"] for _ in range(args.repeat)]
    prefill = max(run["prompt_per_second"] for run in runs)
    decode = max(run["predicted_per_second"] for run in runs)
    print(
        f"llama.cpp, {spec.name}, TQ2_0, {threads} threads, best of {args.repeat}:"
        f" prefill of {args.prefill} {prefill:.1f} tok/s,"
        f" decode of {args.decode} {decode:.1f} tok/s"
    )


if __name__ == "__main__":
    main()
