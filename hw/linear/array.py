"""The interface of the array, whichever the configuration has, and its exact sums."""

from __future__ import annotations

from amaranth import Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature

from ..config import AcceleratorConfig

OLD_LATENCY = 2
"""Cycles from the accumulators' old values to the sums."""


def tree_depth(leaves: int) -> int:
    """Levels of a binary adder tree."""
    return (leaves - 1).bit_length()


def sum_bits(config: AcceleratorConfig) -> int:
    """Bits of the sum over a K tile: exact."""
    return config.table_bits + tree_depth(config.tables)


def accumulator_word(config: AcceleratorConfig) -> data.ArrayLayout:
    """Accumulators of a word of weights: [p * Q + q]."""
    return data.ArrayLayout(signed(config.acc_bits), config.tokens * config.rows)


def array_signature(config: AcceleratorConfig) -> Signature:
    """Ports of an array of P token lanes by Q weight rows.

    load: bit p takes `activations` (tile_inputs int8) as those of token lane p. build: high for
    config.build_cycles, while `digits` and `address` count the entries of a table; after it the
    array uses the activations that were loaded last, which hold one more cycle. index: Q * T
    indices (row-major), each the sum of digit j times 3**j of a group, used by every token lane.
    sums: [p * Q + q], the array's latency later: what the lane and row add to `old`, which is given
    OLD_LATENCY cycles before; to zero without use_old. One word a cycle: a sweep may follow the
    last cycle of a build, and a build the last word of a sweep, in the next cycle, when an index
    word comes ring.LATENCY cycles after its step. With two buffers of tables, build_bank is the one
    that is built, index_bank the one that `index` is looked up in. No reset, no back-pressure.
    """
    c = config
    banks = {"build_bank": In(1), "index_bank": In(1)} if c.table_buffers == 2 else {}
    return Signature(
        {
            **banks,
            "load": In(c.tokens),
            "activations": In(data.ArrayLayout(signed(8), c.tile_inputs)),
            "build": In(1),
            "digits": In(data.ArrayLayout(2, c.group)),
            "address": In(c.index_bits),
            "index": In(c.word_bits),
            "old": In(accumulator_word(c)),
            "use_old": In(1),
            "sums": Out(accumulator_word(c)),
        }
    )


def adder_tree(m: Module, leaves: list[Value], name: str) -> Value:
    """The sum of `leaves` (of one shape), tree_depth cycles later: a registered level a cycle."""
    shape, depth = Shape.cast(leaves[0].shape()), 0
    while len(leaves) > 1:
        depth += 1
        width = shape.width + depth
        following: list[Value] = []
        for i in range(0, len(leaves), 2):
            node = Signal(
                signed(width) if shape.signed else unsigned(width),
                name=f"{name}{depth}_{i // 2}",
                reset_less=True,
            )
            m.d.sync += node.eq(sum(leaves[i + 1 : i + 2], leaves[i]))
            following.append(node)
        leaves = following
    return leaves[0]


def accumulate(m: Module, total: Value, old: Value, use_old: Value, name: str) -> Signal:
    """`total` plus what `old` was a cycle earlier, a cycle later; without use_old `total` alone."""
    kept = Signal(signed(len(old)), name=f"old{name}", reset_less=True)
    used = Signal(name=f"use_old{name}", reset_less=True)
    new = Signal(signed(len(old)), name=f"new{name}", reset_less=True)
    m.d.sync += [kept.eq(old), used.eq(use_old), new.eq(total + Mux(used, kept, 0).as_signed())]
    return new
