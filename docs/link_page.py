"""The page of the serial link: its prose, and the tables of hw/link/protocol.py."""

from __future__ import annotations

from terntable.hw.link import protocol
from terntable.hw.link.protocol import ANSWER, CRC_BYTES, DATA_BYTES, REQUEST

INTRODUCTION = """\
A board without a processor of its own is reached over a serial line: registers, memory and the
interrupt of the accelerator, and nothing else. `hw/link` is the board's end (`HostLink`: pins `rx`
and `tx`, an AXI4-Lite master for the control port, an AXI4 master for the memory, the interrupt),
`host/link` the host's. Nothing of this has run on a board: see below for what was done instead.

```
terntable run --device board --board ulx3s --port /dev/ttyUSB0 --model tiny --prompt "It was"
```

## Line

Eight data bits, no parity, one stop bit. A phase accumulator counts fractions of a bit in both
directions, so the rate need not divide the clock: 3 Mbaud at 50 MHz is 16.67 cycles a bit, its rate
off by less than 1e-6. The far end may be off by `(0.5 - 2 / N) / 9.5` with N cycles a bit: 3.9 %
here. A bit takes at least eight cycles. There is no flow control: the board takes every octet, and
what it has no room for is dropped and sent again.
"""

FRAMES = """\
As in asynchronous HDLC (RFC 1662): `{flag:#04x}`, the frame's octets and their CRC-32 (of zlib,
little-endian), `{flag:#04x}`. In between, `{flag:#04x}` and `{escape:#04x}` are sent as
`{escape:#04x}` and the octet with bit 5 turned. Whatever was lost or damaged before a
`{flag:#04x}` spoils nothing behind it. A frame whose CRC is wrong, that is too short or too long,
or broken off (`{escape:#04x}` before `{flag:#04x}`), is dropped without an answer. Write data wait
in the board's buffer until the CRC has proved right.

Numbers are little-endian.

| frame | octets |
| --- | --- |
| request | command 1, sequence 1, session 2, address 4, count 4, data |
| reply | command + {reply:#04x} 1, sequence 1, session 2, status 1, detail 1, data |

A request has at most {data} bytes of data, and so has a reply. The board holds up to
{buffer} octets of requests, of {frames} frames at most.
"""

ORDER = """\
## Order

- **HELLO opens a session**, named by the host at random; every other request has to carry its name.
  A reset, or a new bitstream, ends it: the host learns that what was in registers and memory is
  gone, instead of reading something else.
- **The request after the last one is executed** and answered. **The last one again is answered
  again**, from the reply buffer, and not executed: so the host repeats a request until it is
  answered, and a register is written once. Any other number is answered OUT_OF_ORDER, and has no
  effect.
- **Memory is read and written in windows**: as many requests as the board's buffer holds are under
  way. When one is missing, SYNC names a new sequence number to go on with, and what has no answer
  is sent again; bytes may be written twice.
- Nothing waits for ever: an answer that does not come in time is asked for again, and after ten
  times without one the run ends in an error.

The board executes one request at a time, and the next when the reply before is on its way. Reads
and writes of memory never hold the bus up for the line: what is asked for has a place, and what is
to be written is there.
"""

RATES = """\
## Rates

At 3 Mbaud an octet takes 3.33 us: 300,000 a second each way. A frame of {data} bytes takes
{written} octets to the board and {read} to the host, and one octet more for each escaped one (two
of 256 in random data), so that memory is written at {write_rate} and read at {read_rate} KB/s. The
board works on a full frame for about 1,100 cycles (a write; a read 750) with a memory that answers
at once, 22 us at 50 MHz, while the next 1.8 ms of frame come in. The host asks the system for low
latency, with which converters answer over USB every millisecond instead of every 16; a window
covers 13 ms.

Loading is what takes long, so the host compares first: the board sums the CRC-32 of blocks of
64 KiB at 1.4 cycles a byte, and only those that differ are sent. An image that is on the board
already is loaded in a moment, also by another run. Zeros (the KV cache) are filled in by the board.

A decode step of a model with rows of `H` numbers costs on the line about

    octets = 4 H + 30 ceil(4 H / {data}) + 265
    seconds = 10 octets * 1.008 / baud + 5 turns

of which a turn is what USB takes there and back, 1 to 2 ms. The accelerator finds the largest logit
itself: `V` logits are read only when something else than the largest one is chosen, or they are
wanted (`--logits`), with 4 V + 30 ceil(4 V / {data}) octets and a turn. For `tiny` (H = 256,
V = 1,024) that is 5 ms on the line at 3 Mbaud, and 14 more for the logits. The octets are measured
at the pseudo-terminal; the times are calculated.

`HostLink` takes 2,336 LUT4, 411 carry cells, 2,220 registers and five block memories of an ECP5
(Yosys, `synth_ecp5`, 32-bit bus, bursts of 256 beats).
"""

_UNIT, _CORE = "`tests/hw/link/test_frames.py`", "`tests/hw/link/test_link_core.py`"
_BOARD = "`tests/host/test_board.py`"

CHECKED = [
    (
        "rates that do not divide the clock, far ends 3 % off, noise, breaks",
        "Amaranth's simulator",
        "`tests/hw/link/test_uart.py`",
    ),
    (
        "frames of gateware, host and a second implementation in Python; damage of each kind; full"
        " buffers",
        "Amaranth's simulator",
        _UNIT,
    ),
    (
        "every reply to sound, repeated, skipping and senseless requests, octet by octet",
        "the gateware against that implementation",
        _CORE,
    ),
    (
        "the host's code in front of the gateware; octets dropped, repeated and changed both ways",
        "Amaranth's simulator, whose time is the host's",
        _CORE,
    ),
    (
        "drawn operations over drawn faults",
        "the host against that implementation (Hypothesis)",
        _BOARD,
    ),
    (
        "tokens over a bad line, pulled cables, resets, lost interrupts, calls that stand still",
        "the host at a pseudo-terminal",
        _BOARD,
    ),
    (
        "the contract of Device",
        "the same, beside emulator and simulator",
        "`tests/host/test_devices.py`",
    ),
    (
        "the whole board: link, accelerator, memory controller, SDRAM; every logit is the"
        " emulator's",
        "Verilator, the host at a pseudo-terminal (`sim/serial.py`)",
        "`tests/sim/test_serial_board.py`",
    ),
]
"""What, by what, where."""


def page(note: str) -> str:
    """Text of the page."""
    p = protocol
    written = REQUEST.size + DATA_BYTES + CRC_BYTES + 2
    read = ANSWER.size + DATA_BYTES + CRC_BYTES + 2
    names = {
        "flag": p.FLAG, "escape": p.ESCAPE, "reply": p.REPLY, "data": DATA_BYTES,
        "buffer": f"{p.BUFFER_BYTES:,}", "frames": p.BUFFER_FRAMES, "written": written,
        "read": read, "write_rate": round(300 * DATA_BYTES / written / 1.008),
        "read_rate": round(300 * DATA_BYTES / read / 1.008),
    }  # fmt: skip
    lines = [
        "# Serial link\n",
        note,
        INTRODUCTION,
        "## Frames\n",
        FRAMES.format(**names),
        f"## Commands (protocol version {p.VERSION})\n",
        "| number | command | does |",
        "| --- | --- | --- |",
        *(f"| {c.value} | `{c.name}` | {p.COMMAND_MEANINGS[c]} |" for c in p.Command),
        "\n## Status of a reply\n",
        "| number | status | means |",
        "| --- | --- | --- |",
        *(f"| {r.value} | `{r.name}` | {p.REPLY_MEANINGS[r]} |" for r in p.Reply),
        "\nHELLO is answered with, in octets: protocol version 2, most data 2, buffer's octets 2"
        " and frames 2, the memory's bus address 8 and size 4, the clock in Hz 4, then the"
        " registers MAGIC, VERSION and CONFIG_HASH, 4 each.\n",
        ORDER,
        RATES.format(**names),
        "## What is checked\n",
        "| what | by what | where |",
        "| --- | --- | --- |",
        *(f"| {what} | {by} | {where} |" for what, by, where in CHECKED),
    ]
    return "\n".join(lines) + "\n"
