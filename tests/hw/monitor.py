"""Stream helpers of the Amaranth simulator tests: contract monitor, source, sink.

watch(sim, dut)
sim.add_testbench(source(dut.i, words, rng, 0.5))
sim.add_testbench(sink(dut.o, got, len(expected), rng, 0.5, shy=True))
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from amaranth import Value
from amaranth.sim import Simulator


def watch(sim: Simulator, dut: Any, clear: Value | None = None) -> None:
    """Put a monitor on every stream among the ports of `dut`, those inside of its interfaces too:
    on what it gives, and on what the test gives it."""
    found = list(port_streams(dut))
    assert found, f"{type(dut).__name__} has no stream"
    for name, stream in found:
        sim.add_testbench(monitor(stream, name, clear=clear), background=True)


def port_streams(dut: Any) -> Iterator[tuple[str, Any]]:
    """Name and interface of every stream among the ports of a component."""
    for path, member, value in dut.signature.flatten(dut):
        del member, value
        if path[-1] == "valid":
            at = dut
            for part in path[:-1]:
                at = at[part] if isinstance(part, int) else getattr(at, part)
            yield ".".join(map(str, path[:-1])), at


def monitor(
    stream: Any, name: str, log: list[int] | None = None, clear: Value | None = None
) -> Callable:
    """A background testbench that checks a stream: valid and payload are held until ready, except
    over a reset or a cycle of `clear`. Payloads that are transferred go to `log`, as integers."""

    async def testbench(ctx):
        held = None
        samples = [stream.valid, stream.ready, Value.cast(stream.payload)]
        async for _, reset, valid, ready, payload, cleared in ctx.tick().sample(
            *samples, clear if clear is not None else 0
        ):
            if held is not None:
                assert valid, f"{name}: valid fell before ready"
                assert payload == held, f"{name}: payload changed from {held:#x} to {payload:#x}"
            held = payload if valid and not ready and not cleared and not reset else None
            if valid and ready and log is not None:
                log.append(payload)

    return testbench


def source(stream: Any, words: Iterable[Any], rng: random.Random, idle: float = 0.0) -> Callable:
    """A testbench that offers `words`, each after a random number of idle cycles."""

    async def testbench(ctx):
        for word in words:
            while rng.random() < idle:
                await ctx.tick()
            ctx.set(stream.payload, word)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)

    return testbench


def sink(
    stream: Any,
    got: list[int],
    count: int,
    rng: random.Random,
    idle: float = 0.0,
    shy: bool = False,
) -> Callable:
    """A testbench that takes `count` words into `got` as integers, with random stalls.

    With `shy` it is ready only after it has seen valid: a source that waits for ready never gets
    anywhere.
    """

    async def testbench(ctx):
        offered = False
        while len(got) < count:
            ctx.set(stream.ready, (offered or not shy) and rng.random() >= idle)
            _, _, valid, ready, payload = await ctx.tick().sample(
                stream.valid, stream.ready, Value.cast(stream.payload)
            )
            offered = bool(valid) and not ready
            if valid and ready:
                got.append(payload)
        ctx.set(stream.ready, 0)

    return testbench
