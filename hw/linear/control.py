"""The loops of the linear engine: tiles, token groups, K tiles, words."""

from __future__ import annotations

from amaranth import C, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from ..interfaces import ROW_READ_LATENCY, RowReadSignature, command_layout, op_view
from ..isa import Mode, Op
from .accumulate import issue_layout, word_address_bits
from .drain import ROW_BITS, job_layout


class State(enum.Enum, shape=2):
    """What the array does."""

    IDLE = 0
    WAIT = 1  # for activations or tables; or, after the last word, for the drains
    BUILD = 2  # or, with two buffers, a pause in which the loops' facts settle
    SWEEP = 3


def a8_words(config: AcceleratorConfig) -> int:
    """Words of a row of int8 activations."""
    return config.k_tiles(config.longest_row)


class LinearControl(Component):
    """Steps the array through a LINEAR command.

    For every tile, every group of P tokens and every K tile: build the tables (build_cycles), then
    sweep the tile's words. Activations of the next K tile are read meanwhile, so a K tile takes
    build_cycles + words cycles, when that many are enough to read them (lanes in use * load_cycles
    + 4) and the weights are there. With two buffers of tables the next ones are built meanwhile
    too: a K tile takes gap_cycles + words cycles, or what reading and building take. A sweep waits
    for weights word by word, and the first one of a tile for a half of the accumulators. With
    `follow` activations are not read before they are there.

    cmd: taken when idle; start: strobe in the next cycle, from when on `command` holds it until
    the next. busy: until every job has been drained. a8_read, load: activations, row by row.
    making, made: the vector unit is at work; the rows of its command that are complete.
    build, digits, address: to the tables. build_bank, sweep_bank: with two buffers of them, the
    one that is built, and the one that a step's word is looked up in. step, free, rewind,
    available: weight ring. issue: what a step does to the accumulators, in the cycle of the step.
    finished: the accumulators of a job hold their sums; jobs: hands them to the drain; drained: a
    job has ended. weight_wait: a sweep stands still for want of weights. Reset: idle.
    """

    def __init__(self, config: AcceleratorConfig, load_cycles: int = 1) -> None:
        """load_cycles: cycles from a `load` to the next, 1 or 2."""
        self._config = c = config
        self._load_cycles = load_cycles
        banks = {"build_bank": Out(1), "sweep_bank": Out(1)} if c.table_buffers == 2 else {}
        super().__init__(
            {
                **banks,
                "cmd": In(stream.Signature(command_layout())),
                "busy": Out(1),
                "start": Out(1),
                "command": Out(command_layout()),
                "a8_read": Out(RowReadSignature(c.chunk, a8_words(c), 8 * c.tile_inputs)),
                "making": In(1),
                "made": In(range(c.chunk + 1)),
                "load": Out(c.tokens),
                "build": Out(1),
                "digits": Out(data.ArrayLayout(2, c.group)),
                "address": Out(c.index_bits),
                "available": In(1),
                "step": Out(1),
                "free": Out(1),
                "rewind": Out(1),
                "issue": Out(issue_layout(c)),
                "finished": In(1),
                "jobs": Out(stream.Signature(job_layout(c))),
                "drained": In(1),
                "weight_wait": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        bits = word_address_bits(c)
        m = Module()
        state = Signal(State)
        args = op_view(self.command, Op.LINEAR)

        # Facts of the command, registered: they are first used cycles after `start`.
        tokens = Signal(range(c.chunk + 1))
        words, last_word = Signal(bits + 1), Signal(bits)  # of the current tile
        tile_last, last_last = Signal(bits), Signal(bits)  # of a whole tile, and of the last
        tile_rows = Signal(ROW_BITS)
        last_k = Signal(16)
        m.d.sync += [
            tokens.eq(Mux(args["single"], c.head_digits, self.command.tokens)),
            tile_rows.eq(args["tile_words"] * c.rows),
            last_k.eq(args["k_tiles"] - 1),
            tile_last.eq(args["tile_words"] - 1),
            last_last.eq(args["last_words"] - 1),
        ]

        # Position of the loops.
        k, token = Signal(16), Signal(range(c.chunk + c.tokens))
        tiles_left = Signal(16)
        row, rows_left = Signal(ROW_BITS), Signal(signed(ROW_BITS + 1))
        word, at_first, at_last = Signal(bits), Signal(), Signal()
        k_first, k_end, group_end, tile_end = Signal(), Signal(), Signal(), Signal()
        # Registered: the loops move on when a sweep ends, and a build comes before the next. The
        # shortest one takes 3 cycles: tiles_left, tile_end, last_word, at_last.
        m.d.sync += [
            k_first.eq(k == 0),
            k_end.eq(k == last_k),
            group_end.eq(token + c.tokens >= tokens),
            tile_end.eq(tiles_left == 1),
            words.eq(Mux(tile_end, args["last_words"], args["tile_words"])),
            last_word.eq(Mux(tile_end, last_last, tile_last)),
        ]

        loaded, load_request, loading_ends, last_load = self._preload(m, tokens, last_k)

        # Halves of the accumulators: `used` from the first step to the end of the drain.
        half, used = Signal(), Signal(range(3))
        take, last_step = Signal(), Signal()
        m.d.sync += used.eq(used + take - self.drained)
        blocked = Signal()
        m.d.comb += blocked.eq(k_first & at_first & (used == 2))
        self._jobs(m, take, half, token, tokens, words, row, rows_left, tile_end, args)

        m.d.comb += [
            self.cmd.ready.eq(state == State.IDLE),
            self.busy.eq(state != State.IDLE),
            self.step.eq((state == State.SWEEP) & self.available & ~blocked),
            self.weight_wait.eq((state == State.SWEEP) & ~self.available & ~blocked),
            last_step.eq(self.step & at_last),
            take.eq(self.step & k_first & at_first),
            self.free.eq(group_end),
            self.issue.valid.eq(self.step),
            self.issue.first.eq(k_first),
            self.issue.last.eq(last_step & k_end),
            self.issue.half.eq(half),
            self.issue.word.eq(word),
        ]
        m.d.sync += [
            self.start.eq(0),
            self.rewind.eq(last_step & k_end & ~group_end),
            at_first.eq((word == 0) & ~self.step),
            at_last.eq(Mux(self.step, word + 1, word) == last_word),
        ]
        over = Signal()  # every word has been swept
        ready: Value = loaded | loading_ends  # for a sweep, or for the build before it
        if c.table_buffers == 2:
            ready = self._build_ahead(m, loaded, load_request, last_load, last_step)

        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.cmd.valid):
                    m.d.sync += [
                        self.command.eq(self.cmd.payload),
                        self.start.eq(1),
                        state.eq(State.WAIT),
                    ]
            with m.Case(State.WAIT):
                with m.If(self.start):
                    m.d.comb += load_request.eq(1)
                    m.d.sync += [
                        over.eq(0),
                        k.eq(0),
                        token.eq(0),
                        word.eq(0),
                        row.eq(args["first_row"]),
                        tiles_left.eq(args["tiles"]),
                        rows_left.eq(args["out_rows"]),
                    ]
                with m.Elif(over):
                    with m.If(used == 0):
                        m.d.sync += state.eq(State.IDLE)
                with m.Elif(ready):
                    m.d.sync += state.eq(State.BUILD)
            with m.Case(State.BUILD):
                if c.table_buffers == 2:
                    pause = Signal(range(c.gap_cycles))
                    built = pause == c.gap_cycles - 1
                    m.d.sync += pause.eq(Mux(built, 0, pause + 1))
                else:
                    built = self._build(m)
                    with m.If(built):
                        m.d.comb += load_request.eq(~(k_end & group_end & tile_end))
                with m.If(built):
                    m.d.sync += state.eq(State.SWEEP)
            with m.Case(State.SWEEP):
                with m.If(self.step):
                    m.d.sync += word.eq(word + 1)
                with m.If(last_step):
                    m.d.sync += [
                        word.eq(0),
                        k.eq(k + 1),
                        state.eq(Mux(ready, State.BUILD, State.WAIT)),
                    ]
                    with m.If(k_end):
                        m.d.sync += [k.eq(0), token.eq(token + c.tokens), half.eq(~half)]
                        with m.If(group_end):
                            m.d.sync += [
                                token.eq(0),
                                tiles_left.eq(tiles_left - 1),
                                row.eq(row + tile_rows),
                                rows_left.eq(rows_left - tile_rows),
                            ]
                            with m.If(tile_end):
                                m.d.sync += [over.eq(1), state.eq(State.WAIT)]
        return m

    def _build(self, m: Module) -> Value:
        """An entry of the tables; whether it is the last. Its number in binary and in base 3 goes
        back to zero after that one."""
        last = self.address == self._config.build_cycles - 1
        m.d.comb += self.build.eq(1)
        m.d.sync += self.address.eq(Mux(last, 0, self.address + 1))
        carry: Value = C(1)
        for digit in self.digits:
            with m.If(carry):
                m.d.sync += digit.eq(Mux(digit == 2, 0, digit + 1))
            carry = carry & (digit == 2)
        return last

    def _build_ahead(
        self, m: Module, loaded: Signal, load_request: Signal, last_load: Signal, swept: Signal
    ) -> Value:
        """Builds whenever activations and a buffer are there; swept: one becomes free. Whether
        the tables of the next sweep are complete."""
        building, taken, complete = Signal(), Signal(range(3)), Signal(range(3))
        begin, end = Signal(name="build_begin"), Signal(name="build_end")
        m.d.comb += begin.eq(~building & loaded & (taken != 2))
        with m.If(begin):
            m.d.sync += building.eq(1)
        with m.If(building):
            m.d.comb += end.eq(self._build(m))
            with m.If(end):
                m.d.comb += load_request.eq(~last_load)
                m.d.sync += [building.eq(0), loaded.eq(0), self.build_bank.eq(~self.build_bank)]
        with m.If(swept):
            m.d.sync += self.sweep_bank.eq(~self.sweep_bank)
        m.d.sync += [taken.eq(taken + begin - swept), complete.eq(complete + end - swept)]
        # In the cycle of the last word this is of the tables after it.
        return complete > swept

    def _preload(
        self, m: Module, tokens: Signal, last_k: Signal
    ) -> tuple[Signal, Signal, Signal, Signal]:
        """Reads the activations of the K tiles one after the other, in the order of the loops.

        Returns (loaded, request, ends, over): all lanes hold the next K tile's; read the next K
        tile's; the last lane takes its word in this cycle; with two buffers of tables, there is no
        K tile after those that were asked for.
        """
        c = self._config
        k, token = Signal(16, name="load_k"), Signal(range(c.chunk + c.tokens), name="load_token")
        lane = Signal(range(max(c.tokens, 2)), name="load_lane")
        loaded, loading, request, ends = Signal(), Signal(), Signal(), Signal()
        last = Signal(name="load_last")
        tiles, over = Signal(16, name="load_tiles"), Signal(name="load_over")
        # From when on the command is here: the vector unit's next one waits for this one's end.
        complete, go = Signal(), Signal()
        with m.If(self.cmd.valid & self.cmd.ready):
            m.d.sync += complete.eq(~op_view(self.cmd.payload, Op.LINEAR)["follow"])
        with m.Elif(~self.making):
            m.d.sync += complete.eq(1)
        pause = Signal()
        if self._load_cycles > 1:
            m.d.sync += pause.eq(go)
        m.d.comb += [
            go.eq(loading & ~pause & (complete | (self.a8_read.row < self.made))),
            self.a8_read.en.eq(go),
            self.a8_read.row.eq(token + lane),
            self.a8_read.word.eq(k),
            last.eq((lane == c.tokens - 1) | (token + lane + 1 >= tokens)),
        ]
        with m.If(request):
            m.d.sync += [loading.eq(1), loaded.eq(0)]
        with m.If(go):
            m.d.sync += lane.eq(lane + 1)
            with m.If(last):
                m.d.sync += [loading.eq(0), lane.eq(0), k.eq(k + 1)]
                with m.If(k == last_k):
                    m.d.sync += [k.eq(0), token.eq(token + c.tokens)]
                    with m.If(token + c.tokens >= tokens):
                        m.d.sync += token.eq(0)
                        if c.table_buffers == 2:
                            m.d.sync += [tiles.eq(tiles - 1), over.eq(tiles == 1)]
        strobes, end = Signal(c.tokens), Signal(name="load_end")
        m.d.comb += [strobes.eq(Mux(go, 1 << lane, 0)), end.eq(go & last)]
        for n in range(ROW_READ_LATENCY):
            strobes_next, end_next = Signal(c.tokens, name=f"load{n}"), Signal(name=f"load_end{n}")
            m.d.sync += [strobes_next.eq(strobes), end_next.eq(end)]
            strobes, end = strobes_next, end_next
        m.d.comb += [self.load.eq(strobes), ends.eq(end)]
        with m.If(ends):
            m.d.sync += loaded.eq(1)
        with m.If(self.start):
            m.d.sync += [k.eq(0), token.eq(0), lane.eq(0)]
            if c.table_buffers == 2:
                args = op_view(self.command, Op.LINEAR)
                m.d.sync += [tiles.eq(args["tiles"]), over.eq(0)]
        return loaded, request, ends, over

    def _jobs(
        self, m: Module, take: Signal, half: Signal, token: Signal, tokens: Signal,
        words: Signal, row: Signal, rows_left: Signal, closes: Signal, args: dict,
    ) -> None:  # fmt: skip
        """Describes a half when its first word is swept, hands it out when it is finished."""
        c = self._config
        jobs = Signal(data.ArrayLayout(job_layout(c), 2))
        turn, waiting = Signal(), Signal(range(3))
        left = tokens - token
        with m.If(take):
            job = jobs[half]
            m.d.sync += [
                job.half.eq(half),
                job.words.eq(words),
                job.token.eq(token),
                job.lanes.eq(Mux(left > c.tokens, c.tokens, left)),
                job.closes.eq(closes),
                job.head.eq(args["mode"] == Mode.HEAD),
                job.row.eq(row),
                job.rows_left.eq(rows_left),
            ]
        given = Signal()
        m.d.comb += [
            self.jobs.valid.eq(waiting != 0),
            self.jobs.payload.eq(jobs[turn]),
            given.eq(self.jobs.valid & self.jobs.ready),
        ]
        m.d.sync += [waiting.eq(waiting + self.finished - given), turn.eq(turn ^ given)]
