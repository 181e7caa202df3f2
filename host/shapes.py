"""A model's dimensions as a configuration pads them."""

from __future__ import annotations

from dataclasses import dataclass

from terntable.host.head import PLANES
from terntable.host.image import align
from terntable.host.model import ModelSpec
from terntable.host.packing import plan_tiles
from terntable.hw import isa
from terntable.hw.config import KV_BLOCK, AcceleratorConfig
from terntable.hw.errors import UserError

_MOST_TILES = next(2**f.bits - 1 for f in isa.FIELDS[isa.Op.LINEAR] if f.name == "tiles")


@dataclass(frozen=True)
class Shapes:
    """A model's dimensions padded for a configuration."""

    config: AcceleratorConfig
    spec: ModelSpec
    context: int
    planes: int = PLANES
    """Of the LM head."""
    kv: isa.KvFormat = isa.KvFormat.INT16

    @property
    def hidden(self) -> int:
        return align(self.spec.hidden, self.config.lanes)

    @property
    def ffn(self) -> int:
        return align(self.spec.ffn, self.config.lanes)

    @property
    def head(self) -> int:
        """Dimensions of a padded head."""
        return align(self.spec.head_dim, self.config.head_pad)

    @property
    def attention(self) -> int:
        """Elements of an attention output row."""
        return self.spec.heads * self.head

    @property
    def qkv(self) -> int:
        return (self.spec.heads + 2 * self.spec.kv_heads) * self.head

    @property
    def head_rows(self) -> int:
        """Rows of the LM head as the engine takes it."""
        return self.planes * self.spec.vocab

    @property
    def rope_bytes(self) -> int:
        return align(4 * self.head, self.config.bus_bytes)

    @property
    def record_bytes(self) -> int:
        return self.config.record_bytes(self.head, self.kv.bits)

    @property
    def kv_head_stride(self) -> int:
        """Bytes of a KV head's records on one port, whole attention blocks."""
        return align(self.context, KV_BLOCK) // self.config.ports * self.record_bytes

    @property
    def kv_port_stride(self) -> int:
        return align(self.spec.kv_heads * self.kv_head_stride)

    @property
    def kv_layer_stride(self) -> int:
        return self.config.ports * self.kv_port_stride

    def misfit(self) -> str | None:
        """The first dimension that does not fit, in words; None where all do."""
        spec, config = self.spec, self.config
        for what, size, limit in (
            ("hidden size", self.hidden, "max_hidden"),
            ("feed-forward size", self.ffn, "max_row"),
            ("row of query, key and value heads", self.qkv, "max_row"),
            ("head size", self.head, "max_head_dim"),
            ("number of heads", spec.heads, "max_heads"),
        ):
            most = getattr(config, limit)
            if size > most:
                return f"its {what} is {size}, {limit} is {most}"
        tiles = plan_tiles(config, self.head_rows, self.hidden).tiles
        if tiles > _MOST_TILES:
            return f"its vocabulary of {spec.vocab} takes {tiles} tiles, {_MOST_TILES} are possible"
        return None

    def check(self) -> None:
        """Raise UserError that names the first dimension that does not fit."""
        if why := self.misfit():
            raise UserError(
                f"model {self.spec.name!r} does not fit configuration {self.config.name!r}: {why}:"
                " choose a larger configuration"
            )


def fits(spec: ModelSpec, config: AcceleratorConfig) -> bool:
    """Whether a model of this shape can be compiled for `config`."""
    return Shapes(config, spec, 1).misfit() is None
