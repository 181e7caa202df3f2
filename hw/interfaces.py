"""Signatures between the units: commands, row memories, DMA channels.

Streams follow Amaranth's rules: valid and payload are held until ready, valid never waits for
ready.
"""

from __future__ import annotations

from amaranth import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from . import isa
from .config import AcceleratorConfig


def command_layout() -> data.StructLayout:
    """What a unit receives: the command's words and the chunk it runs for."""
    return data.StructLayout(
        {
            "words": data.ArrayLayout(unsigned(32), isa.COMMAND_WORDS),
            "index": unsigned(16),  # of the command in the program
            "position": unsigned(32),  # position of the chunk's first token
            "tokens": unsigned(16),  # tokens of the chunk, 1..chunk
            "done": unsigned(32),  # tokens of the call before this chunk
        }
    )


class CommandSignature(Signature):
    """A unit's command port. `busy` is high from the cycle after a command is taken until its
    last effect (memory writes acknowledged) has happened; a unit takes one command at a time."""

    def __init__(self) -> None:
        super().__init__({"cmd": Out(stream.Signature(command_layout())), "busy": In(1)})


def op_view(command: data.View, op: isa.Op) -> dict:
    """The fields of `op` in a command payload, as slices named as in `isa.FIELDS`."""
    return {
        f.name: command.words[f.word][f.lsb : f.lsb + f.bits] for f in isa.HEADER + isa.FIELDS[op]
    }


class RowReadSignature(Signature):
    """Read port of a row memory, as the reader sees it: `data` of the addressed word (`width`
    bits) arrives ROW_READ_LATENCY cycles after `en`, every cycle if wanted."""

    def __init__(self, rows: int, words: int, width: int) -> None:
        super().__init__(
            {
                "en": Out(1),
                "row": Out(range(max(rows, 2))),
                "word": Out(range(max(words, 2))),
                "data": In(width),
            }
        )


class RowWriteSignature(Signature):
    """Write port of a row memory, as the writer sees it. `mask` has one bit a lane."""

    def __init__(self, rows: int, words: int, lanes: int, lane_bits: int) -> None:
        super().__init__(
            {
                "en": Out(1),
                "row": Out(range(max(rows, 2))),
                "word": Out(range(max(words, 2))),
                "data": Out(lanes * lane_bits),
                "mask": Out(lanes),
            }
        )


ROW_READ_LATENCY = 2


class FactorSignature(Signature):
    """Write port of the factors d[token] (binary32) that turn integer sums into numbers."""

    def __init__(self, rows: int) -> None:
        super().__init__({"en": Out(1), "token": Out(range(max(rows, 2))), "data": Out(32)})


class ReadChannelSignature(Signature):
    """A reader's channel on one port: descriptors out, bus words in, in order.

    A descriptor asks for `beats` (at least 1) consecutive bus words from byte offset `address`
    (aligned to the bus word, relative to the image's base). The channel may take the next
    descriptor while data of earlier ones are outstanding. It asks the bus only for what its buffer
    can hold, so a reader that stops taking data never blocks another.
    """

    def __init__(self, bus_bits: int) -> None:
        layout = data.StructLayout({"address": unsigned(32), "beats": unsigned(24)})
        super().__init__(
            {"req": Out(stream.Signature(layout)), "data": In(stream.Signature(bus_bits))}
        )


class WriteChannelSignature(Signature):
    """A writer's channel: descriptor, then exactly its beats of data. `done` is high for a cycle
    for each descriptor (of one beat or more) that the memory has answered, in order; `idle` when
    every one that was taken is. `strobe` has one bit a byte."""

    def __init__(self, bus_bits: int) -> None:
        layout = data.StructLayout({"address": unsigned(32), "beats": unsigned(24)})
        word = data.StructLayout({"data": unsigned(bus_bits), "strobe": unsigned(bus_bits // 8)})
        super().__init__(
            {
                "req": Out(stream.Signature(layout)),
                "data": Out(stream.Signature(word)),
                "done": In(1),
                "idle": In(1),
            }
        )


class QueryWriteSignature(Signature):
    """int16 codes of Q on their way to attention: `lanes` of them, word `word` of a head."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "en": Out(1),
                "token": Out(range(max(config.chunk, 2))),
                "head": Out(range(max(config.max_heads, 2))),
                "word": Out(range(max(row_words(config, config.max_head_dim), 2))),
                "data": Out(config.lanes * 16),
            }
        )


class QueryScaleSignature(Signature):
    """Scales of Q (binary32, log2(e) / sqrt(head_dim) folded in) on their way to attention."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__(
            {
                "en": Out(1),
                "token": Out(range(max(config.chunk, 2))),
                "head": Out(range(max(config.max_heads, 2))),
                "data": Out(32),
            }
        )


def row_words(config: AcceleratorConfig, elements: int) -> int:
    """Words of `lanes` elements in a row."""
    return elements // config.lanes
