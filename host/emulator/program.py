"""The program of an image, decoded, with the weights that its FETCH commands stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.emulator.matrix import Matrix
from terntable.host.emulator.memory import Memory
from terntable.host.head import combine_planes, head_max
from terntable.host.packing import TilePlan, matrix_from_words, unpack_stream
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import Command, Mode, Op
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
    if not any(c.op is Op.LINEAR and c["mode"] == Mode.HEAD for c in commands):
        raise memory.bad("program", "END before the LM head")
    matrices: dict[int, Matrix] = {}
    stream = np.zeros((0, config.rows, config.tile_inputs), np.int8)
    for i, command in enumerate(commands):
        memory.command = i
        if command.op is Op.FETCH:
            words = _fetch(config, memory, command)
            stream = np.concatenate([stream, words]) if len(stream) else words
        elif command.op is Op.LINEAR:
            plan = TilePlan(
                command["k_tiles"], command["tile_words"], command["tiles"], command["last_words"]
            )
            if plan.words > len(stream):
                what = f"{plan.words} weight words wanted, {len(stream)} fetched"
                raise memory.bad("command", what, "LINEAR")
            words, stream = stream[: plan.words], stream[plan.words :]
            matrices[i] = _matrix(command, plan, words)
        elif command.op in (Op.CHUNK, Op.END) and len(stream):
            raise memory.bad("program", f"{len(stream)} weight words are left over")
    return Program(commands, matrices)


def _fetch(config: AcceleratorConfig, memory: Memory, command: Command) -> NDArray[np.int8]:
    """Weight words [words, rows, tile_inputs] of a FETCH."""
    size = command["beats"] * config.bus_bytes
    starts = [command["address"] + p * command["port_stride"] for p in range(config.ports)]
    for start in starts:
        memory.fence("weights", start, start + size)
    parts = [memory.data[start : start + size] for start in starts]
    return unpack_stream(config, np.stack(parts), command["words"])


def _matrix(command: Command, plan: TilePlan, words: NDArray[np.int8]) -> Matrix:
    trits = matrix_from_words(words, plan)[: command["out_rows"]]
    if command["mode"] == Mode.HEAD:
        planes = command["planes"]
        return Matrix(combine_planes(trits, planes), head_max(planes))
    return Matrix(trits, 1)
