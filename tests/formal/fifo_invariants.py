"""What ties Amaranth's FIFOs' insides to a count of their words and a marked one.

Without it an induction starts from states that no FIFO is ever in.
"""

from __future__ import annotations

from amaranth import Array, Signal, Value
from amaranth.utils import bits_for

from terntable.sim.formal import Bench

from .marked import Marked


def sync_fifo(
    bench: Bench, path: str, depth: int, width: int, count: Value, marked: Marked | None = None
) -> None:
    """SyncFIFO of any depth over 1."""
    m = bench.m
    produce = bench.probe(f"{path}.produce", range(depth))
    consume = bench.probe(f"{path}.consume", range(depth))
    level = bench.probe(f"{path}.level", range(depth + 1))
    m.d.comb += [
        bench.invariant(level == count),
        bench.invariant(count <= depth),
        bench.invariant((produce < depth) & (consume < depth)),
        bench.invariant(produce == _modulo(bench, consume + count, depth)),
    ]
    if marked is not None:
        words = Array(bench.probe(f"{path}.storage[{n}]", width) for n in range(depth))
        at = _modulo(bench, consume + marked.ahead, depth)
        with m.If(marked.inside):
            m.d.comb += bench.invariant(marked.ahead < count)
            m.d.comb += bench.invariant(words[at] == marked.value)


def buffered_fifo(
    bench: Bench,
    path: str,
    depth: int,
    width: int,
    count: Value,
    r_rdy: Value,
    r_data: Value,
    marked: Marked | None = None,
) -> None:
    """SyncFIFOBuffered of any depth over 2: a SyncFIFO of one word less before a register."""
    m = bench.m
    depth -= 1
    produce = bench.probe(f"{path}.produce", range(depth))
    consume = bench.probe(f"{path}.consume", range(depth))
    level = bench.probe(f"{path}.inner_level", range(depth + 1))
    m.d.comb += [
        bench.invariant(level + r_rdy == count),
        bench.invariant(level <= depth),
        bench.invariant((produce < depth) & (consume < depth)),
        bench.invariant(produce == _modulo(bench, consume + level, depth)),
    ]
    if marked is not None:
        words = Array(bench.probe(f"{path}.storage[{n}]", width) for n in range(depth))
        at = _modulo(bench, consume + marked.ahead - r_rdy, depth)
        with m.If(marked.inside):
            m.d.comb += bench.invariant(marked.ahead < count)
            with m.If(marked.first & r_rdy):
                m.d.comb += bench.invariant(r_data == marked.value)
            with m.Else():
                m.d.comb += bench.invariant(words[at] == marked.value)


def _modulo(bench: Bench, value: Value, modulus: int) -> Signal:
    """`value`, less than twice the modulus, modulo that."""
    result = Signal(max(bits_for(modulus - 1), 1), name="modulo")
    over = value >= modulus
    with bench.m.If(over):
        bench.m.d.comb += result.eq(value - modulus)
    with bench.m.Else():
        bench.m.d.comb += result.eq(value)
    return result
