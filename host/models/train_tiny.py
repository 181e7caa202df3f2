"""Train, export and evaluate ``tiny``, a BitNet b1.58 decoder small enough for tests and demos.

Train:    python host/models/train_tiny.py --text train.txt --heldout held.txt --out DIR
Evaluate: python host/models/train_tiny.py --eval DIR --text held.txt

The optimiser is Muon for the ternary matrices and AdamW for the embedding and the norms' gains.
Every three minutes the model is exported and part of the held-out text evaluated from the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from terntable.host.models.published import Published
from terntable.host.models.straight_through import (
    CONTEXT,
    EPS,
    FFN,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    THETA,
    VOCAB,
    Trainer,
)

CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCAB,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "hidden_act": "relu2",
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "torch_dtype": "bfloat16",
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
    },
}
END = "<|endoftext|>"
QUICK = 20_000  # characters evaluated while training goes on
PROMPT = "It is a truth universally"


def train_tokenizer(text: str) -> Tokenizer:
    """Train a byte-level BPE vocabulary with ``<|endoftext|>`` as token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split(END), trainer)
    return tokenizer


def export(tensors: dict[str, Tensor], tokenizer: Tokenizer, out: Path) -> None:
    """Write the model folder; every file appears whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / ".partial"
    partial.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}, {"format": "pt"}))
    partial.replace(out / "model.safetensors")
    partial.write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / "config.json")
    tokenizer.save(str(partial))
    partial.replace(out / "tokenizer.json")


def batches(
    ids: Tensor, tokens: int, length: int, seed: int, noise: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random windows of ``length`` tokens, ``tokens`` in all, and their successors.

    A part ``noise`` of the inputs (not of the targets) is replaced by random tokens.
    """
    generator = torch.Generator().manual_seed(seed + length)
    span = torch.arange(length + 1)
    while True:
        starts = torch.randint(len(ids) - length, (tokens // length, 1), generator=generator)
        piece = ids[starts + span]
        inputs, targets = piece[:, :-1], piece[:, 1:]
        if noise > 0:
            spoilt = torch.rand(inputs.shape, generator=generator) < noise
            random = torch.randint(VOCAB, inputs.shape, generator=generator)
            inputs = torch.where(spoilt, random, inputs)
        yield inputs, targets


def train(args: argparse.Namespace) -> None:
    """Train by the command line's arguments and export to ``args.out``."""
    torch.manual_seed(args.seed)
    text = args.text.read_text(encoding="utf-8")
    held = args.heldout.read_text(encoding="utf-8")
    tokenizer = train_tokenizer(text)
    ids = torch.tensor(tokenizer.encode(text).ids)
    print(f"{len(text)} characters, {len(ids)} tokens", flush=True)
    if len(ids) <= CONTEXT:
        raise SystemExit(f"the training text is too short: {len(ids)} tokens")
    trainer = Trainer(args.lr, args.muon_lr, not args.eager)
    step, mean = 0, 0.0
    begin = saved = time.monotonic()
    if args.checkpoint and args.checkpoint.exists():
        step, spent = trainer.resume(args.checkpoint)
        begin -= spent
    seed = args.seed + 10_000 * step
    sources = {n: batches(ids, args.batch, n, seed, args.noise) for n in (256, CONTEXT)}
    while True:
        spent = time.monotonic() - begin
        done = step / args.steps if args.steps else spent / (60 * args.minutes)
        if done >= 1:
            break
        rate = min(1.0, (step + 1) / 100) * min(1.0, (1 - done) / 0.6 + 0.005)
        source = sources[256 if done < 0.75 else CONTEXT]
        loss = trainer.step(*next(source), rate, args.decay if done < 0.5 else 0.0)
        mean = 0.99 * mean + 0.01 * loss if mean else loss
        step += 1
        if step % 100 == 0:
            tokens = step * args.batch
            print(f"step {step} {spent:.0f} s {tokens} tokens loss {mean:.4f}", flush=True)
        if time.monotonic() - saved > 180:
            saved = time.monotonic()
            if args.checkpoint:
                trainer.save(args.checkpoint, step, spent)
            report(trainer, tokenizer, args.out, held[:QUICK], text[:QUICK])
    if args.checkpoint:
        trainer.save(args.checkpoint, step, spent)
    report(trainer, tokenizer, args.out, held, text)
    print(f"{step} steps, {step * args.batch} tokens, {time.monotonic() - begin:.0f} s")


def report(trainer: Trainer, tokenizer: Tokenizer, out: Path, held: str, text: str) -> None:
    """Export the present state and print its cost on held-out and on trained text."""
    export(trainer.tensors(), tokenizer, out)
    model = Published(out)
    costs = [model.bits_per_character(part) for part in (held, text[: len(held)])]
    print(f"bits per character: held-out {costs[0]:.4f} trained {costs[1]:.4f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="training or evaluation text")
    parser.add_argument("--heldout", type=Path, help="text that is evaluated, never trained on")
    parser.add_argument("--out", type=Path, help="model folder to write")
    parser.add_argument("--eval", type=Path, help="evaluate this model folder instead")
    parser.add_argument("--window", type=int, default=CONTEXT, help="tokens in sight (--eval)")
    parser.add_argument("--minutes", type=float, default=35.0, help="training time")
    parser.add_argument("--steps", type=int, default=0, help="training steps, in place of time")
    parser.add_argument("--batch", type=int, default=4096, help="tokens a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="AdamW: embedding and gains")
    parser.add_argument("--muon-lr", type=float, default=5e-3, help="Muon: ternary matrices")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay, first half")
    parser.add_argument("--noise", type=float, default=0.0, help="part of inputs made random")
    parser.add_argument("--checkpoint", type=Path, help="file to save to and to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="do not compile the training graph")
    args = parser.parse_args()
    if not 1 <= args.window <= CONTEXT:
        parser.error(f"--window lies between 1 and {CONTEXT}")
    torch.set_num_threads(args.threads)
    if args.eval:
        model = Published(args.eval)
        cost = model.bits_per_character(args.text.read_text(encoding="utf-8"), args.window)
        print(f"bits per character: {cost:.4f}")
        for temperature in (0.0, 0.8):
            print(f"T={temperature}: {model.sample(PROMPT, 64, temperature)}")
    elif args.heldout is None or args.out is None:
        parser.error("training needs --heldout and --out")
    else:
        train(args)


if __name__ == "__main__":
    main()
