"""One word of a queue, any one, followed from its entry to its exit.

The prover chooses the word. If it comes out with its own value after exactly the words that were
ahead of it, then so does every word: nothing is lost, doubled, changed or overtaken.
"""

from __future__ import annotations

from typing import Any

from amaranth import Signal, Value

from terntable.sim.formal import Bench


class Marked:
    """`inside` while the word is in the queue, `ahead` the words before it, `value` its content.

    enter, leave: a word enters, the oldest word leaves. count: words in the queue before these.
    drop: the queue is emptied after this cycle.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        enter: Any,
        value: Any,
        leave: Any,
        count: Any,
        most: int,
        drop: Any = 0,
    ) -> None:
        m = bench.m
        value = Value.cast(value)
        self.inside = Signal(name="marked_inside")
        self.ahead = Signal(range(most + 1), name="marked_ahead")
        self.value = Signal(len(value), name="marked_value")
        self.entered = Signal(name="marked_entered")
        self.first = Signal(name="marked_first")
        m.d.comb += [
            self.entered.eq(enter & bench.free(1, "mark") & ~self.inside),
            self.first.eq(self.inside & (self.ahead == 0)),
        ]
        with m.If(self.inside & leave):
            m.d.sync += self.ahead.eq(self.ahead - 1)
            with m.If(self.ahead == 0):
                m.d.sync += self.inside.eq(0)
        with m.If(self.entered):
            m.d.sync += [
                self.inside.eq(1),
                self.ahead.eq(count - leave),
                self.value.eq(value),
            ]
        with m.If(drop):
            m.d.sync += self.inside.eq(0)
