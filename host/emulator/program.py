"""The program of an image, decoded, with the weights that its FETCH commands stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.emulator.matrix import Matrix
from terntable.host.emulator.memory import Memory
from terntable.host.head import combine_planes, head_max
from terntable.host.packing import TilePlan, WordStream, matrix_from_words
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import Command, Dest, Mode, Op
from terntable.hw.limits import violation


@dataclass(frozen=True)
class Program:
    """Commands up to and with END, and the matrix of each LINEAR by the command's index."""

    commands: list[Command]
    matrices: dict[int, Matrix]


def read_program(config: AcceleratorConfig, memory: Memory, address: int) -> Program:
    """Decode the program at `address`. Raises DeviceError for commands that can't be executed."""
    memory.program = address
    commands: list[Command] = []
    while not commands or commands[-1].op is not Op.END:
        memory.command = len(commands)
        at = address + isa.COMMAND_BYTES * memory.command
        memory.fence("program", at, at + isa.COMMAND_BYTES)
        try:
            command = isa.decode(memory.data[at : at + isa.COMMAND_BYTES].tobytes())
        except ValueError as e:
            raise memory.bad("command", str(e)) from None
        if broken := violation(config, command):
            raise memory.bad("dimension", broken, isa.UNIT_OF[command.op].name)
        commands.append(command)
    ops = [command.op for command in commands]
    if Op.CHUNK not in ops:
        raise memory.bad("program", "END before CHUNK")
    heads = [c for c in commands if c.op is Op.LINEAR and c["mode"] == Mode.HEAD]
    if not heads:
        raise memory.bad("program", "END before the LM head")
    matrices: dict[int, Matrix] = {}
    streams: list[WordStream] = []
    for i, command in enumerate(commands):
        memory.command = i
        if command.op is Op.FETCH:
            streams.append(_fetch(config, memory, command))
        elif command.op is Op.LINEAR:
            plan = TilePlan(
                command["k_tiles"], command["tile_words"], command["tiles"], command["last_words"]
            )
            left = sum(stream.left for stream in streams)
            if plan.words > left:
                what = f"{plan.words} weight words wanted, {left} fetched"
                raise memory.bad("command", what, "LINEAR")
            matrices[i] = _matrix(command, plan, streams)
        elif command.op in (Op.CHUNK, Op.END) and any(stream.left for stream in streams):
            left = sum(stream.left for stream in streams)
            raise memory.bad("program", f"{left} weight words are left over")
    loaded = sum(c["count"] for c in commands if c.op is Op.LOAD and c["dest"] == Dest.SCALE)
    wanted = sum(c["out_rows"] // c["planes"] for c in heads)
    if loaded > wanted:
        raise memory.bad("program", f"{loaded - wanted} scales are left over")
    return Program(commands, matrices)


def _fetch(config: AcceleratorConfig, memory: Memory, command: Command) -> WordStream:
    """Weight words of a FETCH."""
    size = command["beats"] * config.bus_bytes
    starts = [command["address"] + p * command["port_stride"] for p in range(config.ports)]
    for start in starts:
        memory.fence("weights", start, start + size)
    parts = [memory.data[start : start + size] for start in starts]
    return WordStream(config, np.stack(parts), command["words"])


def _take(streams: list[WordStream], words: int) -> NDArray[np.int8]:
    """The next words of streams that follow one another; those that are used up go."""
    parts = []
    while words:
        part = streams[0].take(min(words, streams[0].left))
        parts.append(part)
        words -= len(part)
        if not streams[0].left:
            del streams[0]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _matrix(command: Command, plan: TilePlan, streams: list[WordStream]) -> Matrix:
    """The matrix of a LINEAR. A large head's planes are combined a few tiles at a time."""
    if command["mode"] != Mode.HEAD:
        trits = matrix_from_words(_take(streams, plan.words), plan)
        return Matrix(trits[: command["out_rows"]], 1)
    planes = command["planes"]
    entries = command["out_rows"] // planes
    codes: list[NDArray[np.int8]] = []
    for first in range(0, plan.tiles, planes):  # as many tiles hold whole entries
        tiles = min(planes, plan.tiles - first)
        last = plan.last_words if first + tiles == plan.tiles else plan.tile_words
        part = TilePlan(plan.k_tiles, plan.tile_words, tiles, last)
        trits = matrix_from_words(_take(streams, part.words), part)
        codes.append(combine_planes(trits[: len(trits) // planes * planes], planes))
    return Matrix(np.concatenate(codes)[:entries], head_max(planes))
