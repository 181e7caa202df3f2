"""The test matrix of the parameters: which values there are, and cases drawn from them.

A case is a configuration, a model that fits it, and calls. Its maxima lie close to the model's
dimensions, so that the gateware stays small and full rows, rings and accumulators are usual.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import ValidationError

from terntable.host.compiler import compile_model
from terntable.host.devices.sim import SimDevice
from terntable.host.image import Image
from terntable.host.model import ModelSpec, random_model
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.isa import KvFormat

from .agreement import assert_same

FACTORS: dict[str, tuple[Any, ...]] = {
    # The configuration.
    "array": ("lookup", "select_add"),
    "table_buffers": (1, 2),
    "group": (2, 3, 4),
    "tables": (1, 3, 4, 8),
    "rows": (2, 4, 6, 8),
    "tokens": (1, 2, 3, 4),
    "weight_memory": ("uram", "bram", "lutram"),
    "lanes": (2, 4, 8),
    "attention_dims": (2, 4, 16),
    "attention_rows": (1, 2, 3),
    "ports": (1, 2, 4),
    "bus_bits": (32, 64, 128, 256),
    "burst_beats": (1, 5, 64),
    "chunk": (1, 3, 8),
    "tile_words": (1, 3, 16),  # accumulator words of a tile
    "spare_words": (0, 5, 64),  # of the weight ring, beyond the least
    # The model and the run.
    "heads": ("mha", "gqa", "mqa", "shards"),  # shards: two scales a matrix
    "activation": ("silu", "relu2"),
    "attn_sub_norm": (False, True),
    "ffn_sub_norm": (False, True),
    "tied": (False, True),
    "kv": tuple(KvFormat.__members__),  # codes of K and V
    "reach": ("chunks", "blocks"),  # of the prompt, beyond one of them
    "stalls": (False, True),  # of the memory
    "power_up": (False, True),  # registers and memories begin with random contents
}
Values = Mapping[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]

LINKED = ("array", "table_buffers", "group", "tables", "rows", "tokens", "lanes", "attention_dims",
          "chunk")  # fmt: skip
"""What the configuration's rules tie together; all other values go with any."""


def _config(values: Values, **sizes: int) -> AcceleratorConfig:
    given = {k: v for k, v in values.items() if k in AcceleratorConfig.model_fields}
    return AcceleratorConfig.model_validate({"name": "drawn", **given, **sizes})


@functools.cache
def linked_values() -> list[dict[str, Any]]:
    """The combinations of the linked factors that are valid, by the configuration's own rules."""
    valid = []
    for chosen in itertools.product(*(FACTORS[name] for name in LINKED)):
        values = dict(zip(LINKED, chosen, strict=True))
        try:
            _config(values, tile_rows=values["rows"], attention_rows=1, weight_depth=65536,
                    max_hidden=64, max_row=64, max_head_dim=64, max_heads=1,
                    max_context=KV_BLOCK)  # fmt: skip
        except ValidationError:
            continue
        valid.append(values)
    return valid


@dataclass(frozen=True)
class Case:
    """One cell of the matrix.

    values   a value for each factor
    shards   scales of a matrix
    calls    tokens of each call; `chunk` of them at a time (None: the configuration's)
    seed     of the model, the tokens, the stalls and what registers begin with
    """

    values: dict[str, Any]
    config: AcceleratorConfig
    spec: ModelSpec
    shards: int
    calls: tuple[int, ...]
    chunk: int | None
    seed: int

    @property
    def image(self) -> Image:
        model = random_model(self.spec, self.seed, self.shards)
        return compile_model(model, self.config, kv=KvFormat[self.values["kv"]])

    def run(self) -> None:
        """Simulate the calls and compare with the emulator. Whatever goes wrong carries the line
        that does it again."""
        print(self.line)
        stalls, power_up = (self.seed if self.values[n] else None for n in ("stalls", "power_up"))
        try:
            with SimDevice(self.config, stress_seed=stalls, power_up=power_up, quick=True) as rtl:
                assert_same(self.image, rtl, self.calls, self.chunk, self.seed)
        except Exception as error:
            error.add_note(f"again: make soak CASE='{self.line}'")
            raise

    @property
    def pairs(self) -> set[Pair]:
        return set(itertools.combinations(self.values.items(), 2))

    @property
    def line(self) -> str:
        """The case as one line of YAML, from which `parse` makes it again."""
        fields = {
            "values": self.values,
            "config": self.config.model_dump(),
            "spec": self.spec.model_dump(mode="json"),
            "shards": self.shards,
            "calls": list(self.calls),
            "chunk": self.chunk,
            "seed": self.seed,
        }
        return yaml.safe_dump(fields, default_flow_style=True, sort_keys=False, width=2**31).strip()

    @classmethod
    def parse(cls, line: str) -> Case:
        fields = yaml.safe_load(line)
        fields["config"] = AcceleratorConfig.model_validate(fields["config"])
        fields["spec"] = ModelSpec.model_validate(fields["spec"])
        return cls(**fields | {"calls": tuple(fields["calls"])})


def read_lines(file: Path) -> list[str]:
    """The lines of a file of cases, which is a YAML list with one in each line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("- ") for line in lines if not line.startswith("#")]


@st.composite
def cases(draw: Callable, uncovered: frozenset[Pair]) -> Case:
    """A case with one of these pairs, and as many others of them as a greedy choice finds."""
    values: dict[str, Any] = {}
    alive = linked_values()

    def choose(name: str, value: Any) -> None:
        nonlocal alive
        values[name] = value
        if name in LINKED:
            alive = [v for v in alive if v[name] == value]

    for name, value in draw(st.sampled_from(sorted(uncovered, key=repr))):
        choose(name, value)
    for name in draw(st.permutations([n for n in FACTORS if n not in values])):
        options: Iterable[Any] = FACTORS[name]
        if name in LINKED:
            possible = {v[name] for v in alive}
            options = [v for v in options if v in possible]
        gain = {v: sum(_pair(name, v, *it) in uncovered for it in values.items())
                for v in options}  # fmt: skip
        best = max(gain.values())
        choose(name, draw(st.sampled_from([v for v in gain if gain[v] == best])))
    return draw(_completed({name: values[name] for name in FACTORS}))


_PLACE = {name: n for n, name in enumerate(FACTORS)}


def _pair(a: str, x: Any, b: str, y: Any) -> Pair:
    """Two values, in the order of the factors."""
    return ((a, x), (b, y)) if _PLACE[a] < _PLACE[b] else ((b, y), (a, x))


@st.composite
def _completed(draw: Callable, values: dict[str, Any]) -> Case:
    """A case with these values: dimensions, maxima and calls are drawn."""

    def integer(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    lanes, dims = values["lanes"], values["attention_dims"]
    heads, kv_heads = {
        "mha": lambda n: (n, n),
        "gqa": lambda n: (2 * (n + 1), 2),
        "mqa": lambda n: (n + 1, 1),
        "shards": lambda n: (2 * n, 2),
    }[values["heads"]](integer(1, 2))
    shards = 2 if values["heads"] == "shards" else 1
    words = integer(1, 2 if dims < 16 else 1)  # of `attention_dims`, of a head
    head_dim = 2 * integer(dims * (words - 1) // 2 + 1, dims * words // 2)
    # A few K tiles and rows, or a small array would need millions of cycles.
    most = max(12, min(40, 5 * values["group"] * values["tables"]))
    hidden = integer(3, most)
    ffn = integer(3, most)
    if shards > 1:
        ffn = -(-ffn // lanes) * lanes  # a scale changes between words only

    def maximum(*sizes: int) -> int:
        return (-(-max(sizes) // dims) + integer(0, 1)) * dims

    max_hidden = maximum(hidden, 8)
    max_row = maximum((heads + 2 * kv_heads) * words * dims, ffn, 8)
    chunk, longest = values["chunk"], max(max_hidden, max_row)
    first = KV_BLOCK + integer(0, 3) if values["reach"] == "blocks" else 2 * chunk + integer(-1, 1)
    calls = (max(first, 2), 1, 1, max(chunk + integer(-1, 1), 1), 1)
    context = sum(calls) + integer(0, 2)
    k_tiles = -(-longest // (values["group"] * values["tables"]))
    config = _config(
        values,
        tile_rows=values["tile_words"] * values["rows"],
        weight_depth=max(16, 2 * k_tiles) + values["spare_words"],
        clock_hz=draw(st.sampled_from((100_000_000, 250_000_000))),
        max_hidden=max_hidden,
        max_row=max_row,
        max_head_dim=maximum(words * dims, 4),
        max_heads=heads + integer(0, 1),
        max_context=(-(-context // KV_BLOCK) + integer(0, 1)) * KV_BLOCK,
    )
    spec = ModelSpec(
        name="drawn", layers=integer(1, 2), hidden=hidden, ffn=ffn, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim, vocab=integer(2, 30), context=context,
        rope_theta=1e4, eps=draw(st.sampled_from((1e-5, 1e-6))),
        **{k: v for k, v in values.items() if k in ModelSpec.model_fields and k != "heads"},
    )  # fmt: skip
    part = draw(st.none() | st.integers(1, chunk))
    return Case(values, config, spec, shards, calls, part, integer(1, 10**6))
