"""The sequencer: order, wait masks, chunks, jumps, errors, hangs of units."""

import random

import pytest
from amaranth.sim import Simulator

from terntable.hw import isa, regs
from terntable.hw.config import load_config
from terntable.hw.control.sequencer import Sequencer

from ..monitor import watch

CONFIG = load_config("test")
RECORD = CONFIG.record_bytes(8, isa.KvFormat.INT16.bits)
FITTING = {
    isa.Op.LOAD: {"ew": 1},
    isa.Op.NORM_QUANT: {"ew": 1},
    isa.Op.KV_QUANT: {"heads_per_kv": 1, "kv_heads": 1, "head_ew": 4, "record_bytes": RECORD},
    isa.Op.ATTENTION: {"heads_per_kv": 1, "kv_heads": 1, "head_dims": 8, "record_bytes": RECORD},
    isa.Op.LINEAR: {"k_tiles": 1, "tile_words": 1, "last_words": 1, "tiles": 1, "out_rows": 2},
}
"""Fields without which a command is refused."""
HEAD = {"mode": isa.Mode.HEAD, "tile_words": 3, "last_words": 3, "out_rows": 5, "planes": 5}


def command(op: isa.Op, wait: int = 0, **values: int) -> bytes:
    fields = {f.name: 0 for f in isa.FIELDS[op]} | FITTING.get(op, {}) | values
    return isa.encode(op, wait, **fields)


def play(
    program: bytes,
    tokens: int,
    position: int,
    chunk: int,
    seed: int,
    calls: int = 1,
    left: bool = False,
):
    """Run calls with units that are busy for random times. With an odd seed memory and units are
    ready only after valid has come.

    Returns (unit, index, position, tokens, done, units that were busy) of every command; the
    outcome of each call: "done", or code, unit, address and index of an error.
    """
    rng = random.Random(seed)
    shy = seed % 2 == 1
    dut = Sequencer(CONFIG)
    log: list[tuple] = []
    outcome: list[tuple] = []
    busy = dict.fromkeys(isa.Unit, 0)
    base = 0x140

    async def memory(ctx):
        pending: list[int] = []
        sent = None
        async for _, _reset, valid, address, beats, ready in ctx.tick().sample(
            dut.read.req.valid,
            dut.read.req.payload.address,
            dut.read.req.payload.beats,
            dut.read.data.ready,
        ):
            if sent is not None and ready:
                sent = None
            if valid and ctx.get(dut.read.req.ready):
                at = address - base
                data = (program + bytes(1024))[at : at + beats * CONFIG.bus_bytes]
                step = CONFIG.bus_bytes
                pending += [
                    int.from_bytes(data[i : i + step], "little") for i in range(0, len(data), step)
                ]
            if sent is None and pending and rng.random() < 0.7:
                sent = pending.pop(0)
            ctx.set(dut.read.data.valid, sent is not None)
            ctx.set(dut.read.data.payload, sent or 0)
            eager = not shy or (valid and not ctx.get(dut.read.req.ready))
            ctx.set(dut.read.req.ready, eager and rng.random() < 0.7)

    async def units(ctx):
        names = [u.name.lower() for u in isa.Unit]
        samples = []
        for n in names:
            cmd = getattr(dut, f"cmd_{n}")
            samples += [cmd.valid, cmd.payload]
        async for values in ctx.tick().sample(*samples):
            values = values[2:]
            for i, unit in enumerate(isa.Unit):
                valid, payload = values[2 * i], values[2 * i + 1]
                ready = ctx.get(getattr(dut, f"cmd_{names[i]}").ready)
                if valid and ready:
                    running = {u for u in isa.Unit if busy[u]}
                    log.append(
                        (
                            unit,
                            payload.index,
                            payload.position,
                            payload.tokens,
                            payload.done,
                            running,
                        )
                    )
                    busy[unit] = rng.randrange(1, 40)
                elif busy[unit]:
                    busy[unit] -= 1
            for i, unit in enumerate(isa.Unit):
                ctx.set(getattr(dut, f"busy_{names[i]}"), busy[unit] > 0)
                ready = getattr(dut, f"cmd_{names[i]}").ready
                eager = not shy or (values[2 * i] and not ctx.get(ready))
                ctx.set(ready, busy[unit] == 0 and eager)

    async def bench(ctx):
        for name, value in (
            ("program", base),
            ("tokens", tokens),
            ("position", position),
            ("chunk", chunk),
        ):
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.left, left)
        for _ in range(calls):
            for _ in range(4):  # an AXI write lies between
                await ctx.tick()
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(20000):
                if ctx.get(dut.done):
                    assert not any(busy.values())
                    outcome.append(("done",))
                    break
                if ctx.get(dut.error.valid):
                    code = regs.Error(ctx.get(dut.error.code)).name
                    where = ctx.get(dut.error.unit), ctx.get(dut.error.address)
                    outcome.append((code, *where, ctx.get(dut.index)))
                    break
                await ctx.tick()
            else:
                raise AssertionError("the call does not end")
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    watch(sim, dut)
    sim.add_testbench(memory, background=True)
    sim.add_testbench(units, background=True)
    sim.add_testbench(bench)
    sim.run()
    return log, outcome


PROGRAM = [
    (isa.Op.FETCH, 0),
    (isa.Op.LOAD, isa.wait_mask(isa.Unit.LINEAR)),
    (isa.Op.NORM_QUANT, isa.wait_mask(isa.Unit.LOAD, isa.Unit.LINEAR)),
    (isa.Op.LINEAR, isa.wait_mask(isa.Unit.VECTOR)),
    (isa.Op.KV_QUANT, isa.wait_mask(isa.Unit.LINEAR)),
    (isa.Op.ATTENTION, isa.wait_mask(isa.Unit.VECTOR)),
    (isa.Op.CHUNK, 0),
    (isa.Op.FETCH, 0),
    (isa.Op.LINEAR, isa.wait_mask(isa.Unit.ATTENTION)),
    (isa.Op.END, 0),
]


def program_of(commands: list[tuple[isa.Op, int]]) -> bytes:
    """The LINEAR before END is the head."""
    return b"".join(
        command(op, wait, **(HEAD if i == len(commands) - 2 else {}))
        for i, (op, wait) in enumerate(commands)
    )


@pytest.mark.parametrize("seed", range(4))
def test_chunks_in_order(seed: int) -> None:
    tokens, position, chunk = 10, 7, 4
    log, outcome = play(program_of(PROGRAM), tokens, position, chunk, seed, calls=2)
    assert outcome == [("done",)] * 2
    expected = []
    for _ in range(2):
        for done in range(0, tokens, chunk):
            n = min(chunk, tokens - done)
            for index, (op, _) in enumerate(PROGRAM[:6]):
                expected.append((isa.UNIT_OF[op], index, position + done, n, done))
        for index in (7, 8):
            expected.append((isa.UNIT_OF[PROGRAM[index][0]], index, position + 8, 2, 8))
    assert [entry[:5] for entry in log] == expected
    for unit, index, *_, running in log:
        mask = PROGRAM[index][1]
        assert not any(mask >> u & 1 for u in running), (unit, index, running)


def test_bad_command_is_reported() -> None:
    program = command(isa.Op.FETCH) + bytes(64)
    _, outcome = play(program, 1, 0, 1, 0)
    assert outcome == [("BAD_COMMAND", regs.SEQUENCER_UNIT, 0x140 + 64, 1)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("op", "changes"),
    [
        (isa.Op.LOAD, {"ew": CONFIG.max_hidden // CONFIG.lanes + 1}),
        (isa.Op.NORM_QUANT, {"ew": 0}),
        (isa.Op.KV_QUANT, {"heads_per_kv": CONFIG.max_heads + 1}),
        (isa.Op.KV_QUANT, {"format": 3}),
        (isa.Op.ATTENTION, {"format": 3}),
        (isa.Op.LINEAR, {"first_row": CONFIG.max_row}),
        (isa.Op.ATTENTION, {"head_dims": 4096}),
    ],
)
def test_what_does_not_fit_reaches_no_unit(op: isa.Op, changes: dict, seed: int) -> None:
    program = command(isa.Op.FETCH) + command(isa.Op.LOAD) + command(op, **changes)
    log, outcome = play(program + command(isa.Op.END), 1, 0, 1, seed)
    unit = regs.COMMAND_UNIT + isa.UNIT_OF[op]
    assert outcome == [("BAD_DIMENSION", unit, 0x140 + 2 * 64, 2)]
    assert [entry[:2] for entry in log] == [(isa.Unit.FETCH, 0), (isa.Unit.LOAD, 1)]


@pytest.mark.parametrize("cut", range(len(PROGRAM) - 1))
def test_a_program_that_ends_early(cut: int) -> None:
    """END in the place of any command."""
    program = program_of(PROGRAM)
    program = program[: 64 * cut] + command(isa.Op.END) + program[64 * cut + 64 :]
    log, outcome = play(program, 3, 0, 2, cut)
    assert outcome == [("EARLY_END", regs.SEQUENCER_UNIT, 0x140 + 64 * cut, cut)]
    assert len(log) == (cut if cut < 7 else 12 + cut - 7)


def test_weights_or_scales_that_are_left_over() -> None:
    log, outcome = play(program_of(PROGRAM), 1, 0, 1, 0, left=True)
    end = len(PROGRAM) - 1
    assert outcome == [("EARLY_END", regs.SEQUENCER_UNIT, 0x140 + 64 * end, end)]
    assert len(log) == 8


@pytest.mark.parametrize(
    ("tokens", "position", "chunk"),
    [
        (0, 0, 1),
        (1, 0, 0),
        (1, 0, CONFIG.chunk + 1),
        (2, CONFIG.max_context - 1, 1),
        (2**32 - 1, 2, 1),
    ],
)
def test_bad_call_is_reported(tokens: int, position: int, chunk: int) -> None:
    log, outcome = play(command(isa.Op.END), tokens, position, chunk, 0)
    assert outcome[0][0] == "BAD_CALL"
    assert not log
