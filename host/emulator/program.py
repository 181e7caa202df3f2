"""The program of an image, decoded, with the weights that its FETCH commands stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.devices.base import DeviceError
from terntable.host.emulator.matrix import Matrix
from terntable.host.emulator.memory import Memory
from terntable.host.head import HEAD_MAX, combine_planes
from terntable.host.packing import TilePlan, matrix_from_words, unpack_stream
from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import Command, Mode, Op
from terntable.hw.linear.trits import TRITS_PER_BYTE


@dataclass(frozen=True)
class Program:
    """Commands up to and with END, and the matrix of each LINEAR by the command's index."""

    commands: list[Command]
    matrices: dict[int, Matrix]


def read_program(config: AcceleratorConfig, memory: Memory, address: int) -> Program:
    """Decode the program at `address`. Raises DeviceError for commands that can't be executed."""
    commands: list[Command] = []
    at = address
    while not commands or commands[-1].op is not Op.END:
        memory.command = len(commands)
        memory.fence("program", at, at + isa.COMMAND_BYTES)
        try:
            commands.append(isa.decode(memory.data[at : at + isa.COMMAND_BYTES].tobytes()))
        except ValueError as e:
            raise DeviceError(
                f"bad command: {e}", unit="sequencer", address=at, command=memory.command
            ) from None
        at += isa.COMMAND_BYTES
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
                raise memory.bad(f"{plan.words} weight words wanted, {len(stream)} fetched")
            words, stream = stream[: plan.words], stream[plan.words :]
            matrices[i] = _matrix(config, memory, command, plan, words)
        elif command.op is Op.CHUNK and len(stream):
            raise memory.bad(f"{len(stream)} weight words of the chunk are left over")
    return Program(commands, matrices)


def _fetch(config: AcceleratorConfig, memory: Memory, command: Command) -> NDArray[np.int8]:
    """Weight words [words, rows, tile_inputs] of a FETCH."""
    size = command["beats"] * config.bus_bytes
    starts = [command["address"] + p * command["port_stride"] for p in range(config.ports)]
    for start in starts:
        memory.fence("weights", start, start + size)
    if command["words"] * config.word_trits > size * config.ports * TRITS_PER_BYTE:
        raise memory.bad("fewer beats than its weight words take")
    parts = [memory.data[start : start + size] for start in starts]
    return unpack_stream(config, np.stack(parts), command["words"])


def _matrix(
    config: AcceleratorConfig,
    memory: Memory,
    command: Command,
    plan: TilePlan,
    words: NDArray[np.int8],
) -> Matrix:
    rows = command["out_rows"]
    trits = matrix_from_words(words, plan)
    head = command["mode"] == Mode.HEAD
    unit = isa.PLANES if head else config.lanes
    if rows > trits.shape[0] or rows % unit:
        raise memory.bad(f"{rows} rows: a multiple of {unit} up to {trits.shape[0]} is expected")
    if head:
        return Matrix(combine_planes(trits[:rows]), HEAD_MAX)
    return Matrix(trits[:rows], 1)
