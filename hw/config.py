"""The one description of an accelerator: validated, frozen, hashed, read from YAML.

The same object drives the gateware, the compiler that packs weights, the emulator and the host
runtime. It needs neither Amaranth nor a simulator.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError
from .parts import DEFAULT_FAMILY, PARTS, Part

KV_BLOCK = 32
"""Positions in an attention block; blocks are aligned to absolute positions."""

SCALES_BYTES = 8
"""The scales of K and V in a KV record, binary32."""

GATEWARE_VERSION = 4
"""Raised when the same configuration yields gateware that needs other images or programs."""


def _is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


class AcceleratorConfig(BaseModel):
    """Parameters of one accelerator. Every field changes the gateware."""

    # Strict: "8", 8.0 and true are not the number that a field means, and would hash differently.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    part: str | None = Field(
        default=None, description="FPGA whose primitives are instantiated; none: any device's"
    )
    # The array.
    array: Literal["lookup", "select_add"] = Field(
        default="lookup", description="look sums of G activations up, or add them one by one"
    )
    group: int = Field(ge=2, le=4, description="G: activations looked up together")
    tables: int = Field(ge=1, le=64, description="T: tables, one per group of a K tile")
    table_buffers: Literal[1, 2] = Field(
        default=1, description="2: the next tables are built while these are looked up"
    )
    rows: int = Field(ge=2, le=32, description="Q: weight rows per cycle")
    tokens: int = Field(ge=1, le=16, description="P: token lanes that share the weights")
    tile_rows: int = Field(ge=2, le=8192, description="most weight rows of a tile (accumulators)")
    weight_memory: Literal["uram", "bram", "lutram"] = "uram"
    weight_depth: int = Field(ge=16, le=65536, description="words of the weight ring")
    # The elementwise pipeline.
    lanes: int = Field(ge=2, le=16, description="E: binary32 lanes of the elementwise pipeline")
    # Attention.
    attention_dims: int = Field(
        ge=2, le=64, description="head dimensions multiplied per cycle, half of them for sums"
    )
    attention_rows: int = Field(
        ge=1, le=16, description="query rows by positions multiplied per cycle"
    )
    attention_pipes: Literal[1, 2, 4] = Field(
        default=1, description="scores that become weights per cycle"
    )
    # Memory ports.
    ports: Literal[1, 2, 4] = 1
    bus_bits: Literal[32, 64, 128, 256] = 128
    burst_beats: int = Field(default=64, ge=1, le=256)
    clock_hz: int = Field(default=250_000_000, ge=1_000_000, le=1_000_000_000)
    # Maxima of the models that fit.
    chunk: int = Field(ge=1, le=128, description="C: tokens of a prefill chunk, on-chip rows")
    max_hidden: int = Field(ge=8, le=16384, description="longest residual row")
    max_row: int = Field(ge=8, le=65536, description="longest other row: ffn, q+k+v")
    max_head_dim: int = Field(ge=4, le=256)
    max_heads: int = Field(ge=1, le=128)
    max_context: int = Field(ge=KV_BLOCK, le=65536)

    @model_validator(mode="after")
    def _check(self) -> AcceleratorConfig:
        def need(ok: bool, what: str) -> None:
            if not ok:
                raise ValueError(what)

        need(
            self.part is None or self.part in PARTS,
            f"part is {self.part!r}: choose from {', '.join(PARTS)}, or leave it out",
        )
        need(
            self.weight_memory != "uram" or self.device is None or self.device.uram > 0,
            f"weight_memory is 'uram': {self.part} has none, choose bram or lutram",
        )
        need(
            self.table_buffers == 1 or self.array == "lookup",
            f"table_buffers is {self.table_buffers}: array {self.array} has no tables, leave it"
            " out",
        )
        need(_is_power_of_two(self.lanes), f"lanes is {self.lanes}: make it a power of two")
        need(
            _is_power_of_two(self.attention_dims),
            f"attention_dims is {self.attention_dims}: make it a power of two",
        )
        need(
            self.rows % self.lanes == 0,
            f"rows is {self.rows}: make it a multiple of lanes ({self.lanes})",
        )
        need(
            self.tile_inputs % self.lanes == 0,
            f"group * tables is {self.tile_inputs}: make it a multiple of lanes ({self.lanes})",
        )
        need(
            self.tile_rows % self.rows == 0,
            f"tile_rows is {self.tile_rows}: make it a multiple of rows ({self.rows})",
        )
        need(
            self.attention_dims >= self.lanes,
            f"attention_dims is {self.attention_dims}: make it at least lanes ({self.lanes})",
        )
        for field in ("max_hidden", "max_row", "max_head_dim"):
            value = getattr(self, field)
            need(
                value % self.attention_dims == 0,
                f"{field} is {value}: make it a multiple of attention_dims ({self.attention_dims})",
            )
        need(
            self.max_context % KV_BLOCK == 0,
            f"max_context is {self.max_context}: make it a multiple of {KV_BLOCK}",
        )
        need(
            self.weight_depth >= 2 * self.k_tiles(self.longest_row),
            f"weight_depth is {self.weight_depth}: two tiles of {self.rows} rows by the longest"
            f" row need {2 * self.k_tiles(self.longest_row)} words",
        )
        need(
            self.attention_pipes <= self.ports,
            f"attention_pipes is {self.attention_pipes}: make it at most ports ({self.ports})",
        )
        need(
            self.chunk >= self.head_digits,
            f"chunk is {self.chunk}: make it at least {self.head_digits}, the rows that the LM head"
            " takes",
        )
        need(
            self.burst_beats * self.bus_bytes <= 4096,
            f"burst_beats is {self.burst_beats}: a burst of over 4096 bytes crosses a page",
        )
        return self

    # Derived parameters: the gateware and the compiler take them from here.
    @property
    def device(self) -> Part | None:
        """The part, if the configuration is for one."""
        return None if self.part is None else PARTS[self.part]

    @property
    def family(self) -> str:
        """The architecture of the part; without one the default."""
        return DEFAULT_FAMILY if self.device is None else self.device.family

    @property
    def tile_inputs(self) -> int:
        """Inputs of a K tile, G * T."""
        return self.group * self.tables

    @property
    def index_bits(self) -> int:
        """Bits of an index into a table of 3**G entries."""
        return (3**self.group - 1).bit_length()

    @property
    def build_cycles(self) -> int:
        """Cycles in which the array takes a K tile's activations: the entries of a table; without
        tables as many as keep a word from coming again to its accumulators too early."""
        return 3**self.group if self.array == "lookup" else 3

    @property
    def gap_cycles(self) -> int:
        """Cycles between two sweeps: the build, unless it was done during the sweep before."""
        return self.build_cycles if self.table_buffers == 1 else 3

    @property
    def table_address_bits(self) -> int:
        """Bits of the address of a table's entry, the buffer's number on top."""
        return self.index_bits + self.table_buffers - 1

    @property
    def table_bits(self) -> int:
        """Bits of a table entry: a signed sum of G signed bytes, up to 128 * G."""
        return (128 * self.group).bit_length() + 1

    @property
    def word_trits(self) -> int:
        """Trits of a weight word: Q rows by one K tile."""
        return self.rows * self.tile_inputs

    @property
    def word_bits(self) -> int:
        """Bits of a weight word as the ring stores it: one index a group."""
        return self.rows * self.tables * self.index_bits

    @property
    def macs_per_cycle(self) -> int:
        """Ternary multiply-accumulates a cycle."""
        return self.word_trits * self.tokens

    @property
    def acc_bits(self) -> int:
        """Bits of an accumulator: exact for K up to 65,536."""
        return 24

    @property
    def bus_bytes(self) -> int:
        return self.bus_bits // 8

    @property
    def beat_bytes(self) -> int:
        """Bytes of one beat on all ports together."""
        return self.ports * self.bus_bytes

    @property
    def rows_in_uram(self) -> bool:
        """The binary32 rows lie in URAM, as the weights do: they are too deep for block RAM."""
        return self.weight_memory == "uram"

    @property
    def head_digits(self) -> int:
        """int8 digits of the LM head's activation: two where two token lanes can hold them."""
        return min(2, self.tokens)

    @property
    def head_pad(self) -> int:
        """A head is padded to a multiple of this (attention_dims is never below lanes)."""
        return self.attention_dims

    @property
    def longest_row(self) -> int:
        """Elements of the longest row of any kind."""
        return max(self.max_hidden, self.max_row)

    def k_tiles(self, inputs: int) -> int:
        """K tiles of a row of `inputs` elements."""
        return -(-inputs // self.tile_inputs)

    def scales_offset(self, head_dim: int, bits: int) -> int:
        """Byte of a KV record where its scales begin: behind `head_dim` codes each of K and V, of
        `bits` bits, at a multiple of their 8 bytes or of a bus word.

        `head_dim` is padded already.
        """
        unit = min(8, self.bus_bytes)
        return -(-head_dim * bits // 4 // unit) * unit

    def record_bytes(self, head_dim: int, bits: int) -> int:
        """Bytes of a KV record (codes and scales of K and V of one token and head), in whole
        beats."""
        size = self.scales_offset(head_dim, bits) + SCALES_BYTES
        return -(-size // self.bus_bytes) * self.bus_bytes

    @property
    def hash(self) -> int:
        """32-bit content hash: gateware and image carry it, and must agree."""
        fields = self.model_dump() | {"gateware_version": GATEWARE_VERSION}
        text = json.dumps(fields, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


@dataclass(frozen=True)
class MemoryPlan:
    """How many primitives a weight ring takes, from width and depth alone.

    TeLLMe v2 places its weights by ``(Q/2) * ceil(5T/72) * ceil(depth/4096)`` with whole
    primitives for each row of weights. Packing the indices of all rows side by side needs
    ``ceil(5TQ/72) * ceil(depth/4096)``, which is never more.
    """

    primitive: str
    wide: int
    deep: int
    bits: int
    used_bits: int

    @property
    def primitives(self) -> int:
        return self.wide * self.deep

    @property
    def utilisation(self) -> float:
        return self.used_bits / (self.primitives * self.bits)


_PRIMITIVES = {
    "xcup": {
        "uram": ("URAM288", 72, 4096),
        "bram": ("RAMB36E2", 72, 512),
        "lutram": ("RAM32M16", 14, 32),
    },
    "ecp5": {
        "bram": ("PDPW16KD", 36, 512),
        "lutram": ("TRELLIS_DPR16X4", 4, 16),
    },
}


def weight_memory_plan(config: AcceleratorConfig) -> MemoryPlan:
    """Place the weight ring of `config` on its memory primitive."""
    primitive, width, depth = _PRIMITIVES[config.family][config.weight_memory]
    return MemoryPlan(
        primitive=primitive,
        wide=-(-config.word_bits // width),
        deep=-(-config.weight_depth // depth),
        bits=width * depth,
        used_bits=config.word_bits * config.weight_depth,
    )


def named_configs() -> list[str]:
    """Names that `load_config` knows, smallest array first."""
    folder = resources.files("terntable.hw.configs")
    names = [f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")]
    return sorted(names, key=lambda n: (_parse(n, _named(n)).macs_per_cycle, n))


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(k, deep=True) for k, _ in node.value if k.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} comes twice")
        return super().construct_mapping(node, deep)


def load_config(name_or_path: str) -> AcceleratorConfig:
    """Read a named configuration or a YAML file.

    Raises UserError with one line that names the file, the key and the remedy.
    """
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"no configuration file {name_or_path!r}") from None
        except OSError as e:
            raise UserError(f"{name_or_path}: can't be read: {e.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"{name_or_path}: not UTF-8 text") from None
    elif name_or_path in named_configs():
        text = _named(name_or_path)
    else:
        raise UserError(
            f"unknown configuration {name_or_path!r}: choose from {', '.join(named_configs())},"
            " or name a YAML file"
        )
    return _parse(name_or_path, text)


def _named(name: str) -> str:
    file = resources.files("terntable.hw.configs") / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


def _parse(name_or_path: str, text: str) -> AcceleratorConfig:
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        # Besides the parser's errors: a date that doesn't exist, a number of 5,000 digits.
        line = " ".join(str(e).split())
        raise UserError(f"{name_or_path}: not YAML: {line}") from None
    if not isinstance(values, dict):
        raise UserError(f"{name_or_path}: a mapping of parameters is expected")
    try:
        return AcceleratorConfig.model_validate(values)
    except ValidationError as e:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc'])) or 'config'}: {p['msg'].removeprefix('Value error, ')}"
            for p in e.errors()
        )
        raise UserError(f"{name_or_path}: {problems}") from None
