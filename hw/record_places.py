"""Where the parts of a KV record lie, in bus words: for the gateware that writes or reads them."""

from __future__ import annotations

from amaranth import Module, Shape, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.utils import exact_log2

from .config import SCALES_BYTES, AcceleratorConfig
from .isa import KvFormat


def places_layout(config: AcceleratorConfig) -> data.StructLayout:
    """Parts of a record, in bus words from its start."""
    lanes = max(1, config.bus_bytes // SCALES_BYTES)
    return data.StructLayout(
        {
            "codes": unsigned(16),  # bus words that hold codes
            "scales": unsigned(16),  # bus word in which the scales begin
            "lane": Shape.cast(range(max(lanes, 2))),  # where in it, in units of both
        }
    )


def record_places(
    m: Module, config: AcceleratorConfig, kv: Value, words: Value, dims: int
) -> data.View:
    """The places for heads of `words` words of `dims` codes, a power of two, in the KvFormat `kv`;
    valid two cycles after both."""
    bus_shift = exact_log2(config.bus_bytes)
    unit_shift = min(exact_log2(SCALES_BYTES), bus_shift)
    size = Signal(20)  # bytes of the codes of K and V
    with m.Switch(kv):
        for number_format in KvFormat:
            with m.Case(number_format):
                m.d.sync += size.eq(words << exact_log2(dims * number_format.bits // 4))
    least_shift = min(exact_log2(dims * f.bits // 4) for f in KvFormat)

    def whole(shift: int) -> Value:
        """Units of 2**shift bytes that hold the codes."""
        up = (1 << shift) - 1 if least_shift < shift else 0
        return (size + up) >> shift if up else size >> shift

    units = whole(unit_shift)
    places = Signal(places_layout(config))
    m.d.sync += [
        places.codes.eq(whole(bus_shift)),
        places.scales.eq(units >> (bus_shift - unit_shift)),
        places.lane.eq(units[: bus_shift - unit_shift]),
    ]
    return places
