"""What others have published for the same models on the same class of board."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """A system's figures for one shape, all of them measured on its board.

    decode_tok_s  tokens a second, by context where one is stated (0: not stated), as printed
    ttft_s        seconds to the first token by prompt tokens
    """

    system: str
    shape: str
    source: str
    decode_tok_s: dict[int, str] = field(default_factory=dict)
    prefill_tok_s: str = ""
    ttft_s: dict[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line: the figures and where they stand."""
        parts = [
            f"decode {rate} tok/s" + (f" at context {context:,}" if context else "")
            for context, rate in self.decode_tok_s.items()
        ]
        if self.prefill_tok_s:
            parts.append(f"prefill {self.prefill_tok_s} tok/s")
        parts += [f"first token of {n} after {s:g} s" for n, s in self.ttft_s.items()]
        return f"{self.system}: {', '.join(parts)} ({self.source})"


PUBLISHED = (
    Published(
        "TeLLMe v2, KV260",
        "bitnet-0.73b",
        "the paper (FPGA 2026): 250 MHz, LM head on the ARM, KV in FP16",
        decode_tok_s={0: "25"},
        prefill_tok_s="143",
        ttft_s={64: 0.45, 128: 0.96},
    ),
    Published(
        "PD-Swap, KV260",
        "bitnet-0.73b",
        "the paper's abstract: partial reconfiguration between prefill and decode",
        decode_tok_s={0: "27.8", 2048: "over 10"},
    ),
    Published(
        "TeLLMe, KV260",
        "bitnet-0.73b",
        "the first version's paper",
        decode_tok_s={0: "9.5"},
    ),
    Published(
        "bitnet-kv260, KV260",
        "bitnet-2b-4t",
        "its README: hand-written Verilog, shortlisted LM head",
        decode_tok_s={0: "16.8 to 18.6"},
        prefill_tok_s="28.8",
    ),
    Published(
        "bitnet.cpp, the KV260's A53 cores",
        "bitnet-2b-4t",
        "as measured by bitnet-kv260's authors",
        decode_tok_s={0: "2.77"},
    ),
)


def published(shape: str) -> list[Published]:
    """The figures for a shape."""
    return [p for p in PUBLISHED if p.shape == shape]
