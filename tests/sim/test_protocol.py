"""The AXI protocol checkers, edge by edge: legal traffic passes, planted violations are told."""

from __future__ import annotations

import ctypes
import random
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from terntable.sim import toolchain

BYTES, MOST = 8, 16
WORDS = BYTES // 4
OKAY, EXOKAY, SLVERR = 0, 1, 2
FIXED, INCR, WRAP = range(3)
# Bits of the flags in sim/pins.h.
MASTER = {"arvalid": 0, "rready": 1, "awvalid": 2, "wvalid": 3, "wlast": 4, "bready": 5, "arid": 6,
          "awid": 7, "arsize": 8, "awsize": 11, "arburst": 14, "awburst": 16}  # fmt: skip
SLAVE = {"arready": 0, "rvalid": 1, "rlast": 2, "rid": 3, "rresp": 4, "awready": 6, "wready": 7,
         "bvalid": 8, "bid": 9, "bresp": 10}  # fmt: skip
LITE = {"awvalid": 0, "awready": 1, "wvalid": 2, "wready": 3, "bvalid": 4, "bready": 5,
        "arvalid": 6, "arready": 7, "rvalid": 8, "rready": 9, "bresp": 10, "rresp": 12}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("protocol")
    for name in ("pins.h", "protocol.h", "protocol.cpp"):
        text = resources.files("terntable.sim").joinpath(name).read_text()
        (folder / name).write_text(text)
    api = Path(__file__).with_name("protocol_api.cpp")
    (folder / api.name).write_text(api.read_text())
    subprocess.run(
        [
            toolchain.find().cxx, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
            "-o", "protocol.so", "protocol.cpp", api.name,
        ],
        cwd=folder, check=True,
    )  # fmt: skip
    found = ctypes.CDLL(str(folder / "protocol.so"))
    for name in ("new_port", "new_lite"):
        getattr(found, name).restype = ctypes.c_void_p
    for name in ("clock_port", "clock_lite"):
        getattr(found, name).restype = ctypes.c_char_p
    return found


def flags(places: dict[str, int], pins: dict[str, int]) -> int:
    return sum(int(pins.get(name, 0)) << bit for name, bit in places.items())


def array(words: list[int]) -> ctypes.Array:
    return (ctypes.c_uint32 * len(words))(*words)


class Port:
    """One AXI4 port; after the reset the bus rests."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.handle = ctypes.c_void_p(library.new_port(BYTES, MOST))
        self.edge()

    def edge(self, running: int = 1, **pins: int) -> str:
        """One clock edge with these pins, the others low; what was broken first since the reset."""
        araddr, awaddr = pins.get("araddr", 0), pins.get("awaddr", 0)
        high = pins.get("arlen", 0) | pins.get("awlen", 0) << 8
        high |= araddr >> 32 << 16 | awaddr >> 32 << 24
        wdata, rdata = pins.get("wdata", 0), pins.get("rdata", 0)
        word = (1 << 32) - 1
        sized = {"arsize": 3, "awsize": 3, "arburst": INCR, "awburst": INCR} | pins
        master = [araddr & word, awaddr & word, high, flags(MASTER, sized), pins.get("wstrb", 0)]
        master += [wdata >> 32 * i & word for i in range(WORDS)]
        slave = [flags(SLAVE, pins)] + [rdata >> 32 * i & word for i in range(WORDS)]
        told = self.library.clock_port(self.handle, running, array(master), array(slave))
        return told.decode()


class Lite:
    """The AXI4-Lite port."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.handle = ctypes.c_void_p(library.new_lite())
        self.edge()

    def edge(self, running: int = 1, **pins: int) -> str:
        addresses = pins.get("awaddr", 0) | pins.get("araddr", 0) << 16
        words = [flags(LITE, pins), addresses, pins.get("wdata", 0), pins.get("rdata", 0)]
        return self.library.clock_lite(self.handle, running, array(words)).decode()


READ = {"arvalid": 1, "arready": 1, "araddr": 0x1000}
WRITE = {"awvalid": 1, "awready": 1, "awaddr": 0x2000}
DATA = {"wvalid": 1, "wready": 1, "wstrb": 0xFF}
BEAT = {"rvalid": 1, "rready": 1}
ANSWER = {"bvalid": 1, "bready": 1}


@pytest.mark.parametrize(
    ("told", "edges"),
    [
        # Offers.
        ("AR held", [{"arvalid": 1}, {}]),
        ("AR stable", [{"arvalid": 1}, {"arvalid": 1, "araddr": 8}]),
        ("AR stable", [{"arvalid": 1}, {"arvalid": 1, "araddr": 1 << 36}]),
        ("AR stable", [{"arvalid": 1}, {"arvalid": 1, "arlen": 1}]),
        ("AW held", [{"awvalid": 1}, {}]),
        ("AW stable", [{"awvalid": 1}, {"awvalid": 1, "awaddr": 1 << 39}]),
        ("AW stable", [{"awvalid": 1}, {"awvalid": 1, "awid": 1}]),
        ("W held", [{"wvalid": 1}, {}]),
        ("W stable", [{"wvalid": 1}, {"wvalid": 1, "wdata": 1 << 60}]),
        ("W stable", [{"wvalid": 1}, {"wvalid": 1, "wlast": 1}]),
        ("W stable", [{"wvalid": 1}, {"wvalid": 1, "wstrb": 1}]),
        ("R held", [READ, {"rvalid": 1, "rlast": 1}, {}]),
        ("R stable", [READ, {"rvalid": 1, "rlast": 1}, {"rvalid": 1, "rlast": 1, "rdata": 4}]),
        ("R stable", [READ, {"rvalid": 1, "rlast": 1}, {"rvalid": 1, "rlast": 1, "rresp": 2}]),
        ("B held", [WRITE, DATA | {"wlast": 1}, {"bvalid": 1}, {}]),
        ("B stable", [WRITE, DATA | {"wlast": 1}, {"bvalid": 1}, {"bvalid": 1, "bresp": 3}]),
        # Bursts.
        ("AR 4KiB", [READ | {"araddr": 0x1FF8, "arlen": 1}]),
        ("AW 4KiB", [WRITE | {"awaddr": 0xF_FFFF_FF88, "awlen": 15}]),
        ("AR length", [READ | {"arlen": MOST}]),
        ("AW length", [WRITE | {"awlen": 255, "awaddr": 0}]),
        ("AR length", [READ | {"arburst": WRAP, "arlen": 2}]),
        ("AR alignment", [READ | {"arburst": WRAP, "arlen": 3, "araddr": 4}]),
        ("AR size", [READ | {"arsize": 4}]),
        ("AW type", [WRITE | {"awburst": 3}]),
        # Write data.
        ("W last", [WRITE | {"awlen": 1}, DATA, DATA]),
        ("W last", [WRITE | {"awlen": 1}, DATA | {"wlast": 1}]),
        ("W last", [DATA, WRITE]),  # data before their address
        ("W strobes", [WRITE | {"awaddr": 0x2004}, DATA | {"wlast": 1}]),
        ("W strobes", [WRITE | {"awsize": 2, "awlen": 1}, DATA | {"wstrb": 0xF},
                       DATA | {"wstrb": 0x0F, "wlast": 1}]),
        ("W strobes", [WRITE | {"awsize": 0, "awburst": FIXED, "awaddr": 0x2003, "awlen": 1},
                       DATA | {"wstrb": 8}, DATA | {"wstrb": 0x10, "wlast": 1}]),
        ("W strobes", [WRITE | {"awsize": 1, "awburst": WRAP, "awaddr": 0x2002, "awlen": 1},
                       DATA | {"wstrb": 0xC}, DATA | {"wstrb": 0x30, "wlast": 1}]),
        # Answers.
        ("R order", [BEAT | {"rlast": 1}]),
        ("R order", [READ | BEAT | {"rlast": 1}]),  # in the cycle of the address
        ("R order", [READ, BEAT | {"rlast": 1}, BEAT]),
        ("R order", [READ | {"arid": 1}, BEAT | {"rlast": 1}]),
        ("R order", [READ, READ | {"arid": 1}, BEAT | {"rlast": 1, "rid": 1}]),
        ("R last", [READ | {"arlen": 1}, BEAT | {"rlast": 1}]),
        ("R last", [READ | {"arlen": 1}, BEAT, BEAT]),
        ("R response", [READ, BEAT | {"rlast": 1, "rresp": EXOKAY}]),
        ("B order", [ANSWER]),
        ("B order", [WRITE, ANSWER]),
        ("B order", [DATA | {"wlast": 1}, ANSWER]),
        ("B order", [WRITE, DATA | ANSWER | {"wlast": 1}]),  # in the cycle of the last beat
        ("B order", [WRITE, DATA | {"wlast": 1}, ANSWER, ANSWER]),
        ("B order", [WRITE | {"awid": 1}, DATA | {"wlast": 1}, ANSWER]),
        ("B response", [WRITE, DATA | {"wlast": 1}, ANSWER | {"bresp": EXOKAY}]),
    ],
)  # fmt: skip
def test_what_axi4_forbids(library: ctypes.CDLL, told: str, edges: list[dict]) -> None:
    port = Port(library)
    for pins in edges[:-1]:
        assert port.edge(**pins) == ""
    assert port.edge(**edges[-1]) == told
    assert port.edge() == told  # the first one stays
    port.edge(running=0)
    assert port.edge() == ""


@pytest.mark.parametrize("channel", ["ar", "aw", "w", "r", "b"])
def test_valid_at_the_end_of_a_reset(library: ctypes.CDLL, channel: str) -> None:
    port = Port(library)
    port.edge(running=0, **{f"{channel}valid": 1})
    assert port.edge(**{f"{channel}valid": 1}) == f"{channel.upper()} reset"


@pytest.mark.parametrize(
    ("told", "edges"),
    [
        ("AW held", [{"awvalid": 1}, {}]),
        ("AW stable", [{"awvalid": 1}, {"awvalid": 1, "awaddr": 4}]),
        ("W stable", [{"wvalid": 1}, {"wvalid": 1, "wdata": 4}]),
        ("AR stable", [{"arvalid": 1}, {"arvalid": 1, "araddr": 4}]),
        ("R held", [{"arvalid": 1, "arready": 1}, {"rvalid": 1}, {}]),
        ("R stable", [{"arvalid": 1, "arready": 1}, {"rvalid": 1}, {"rvalid": 1, "rdata": 1}]),
        ("B order", [{"awvalid": 1, "awready": 1}, {"bvalid": 1}]),
        ("B order", [{"wvalid": 1, "wready": 1}, {"bvalid": 1}]),
        ("R order", [{"rvalid": 1}]),
        ("R order", [{"arvalid": 1, "arready": 1, "rvalid": 1}]),
        ("R response", [{"arvalid": 1, "arready": 1}, {"rvalid": 1, "rresp": EXOKAY}]),
        ("B response", [
            {"awvalid": 1, "awready": 1, "wvalid": 1, "wready": 1}, {"bvalid": 1, "bresp": EXOKAY}
        ]),
    ],
)  # fmt: skip
def test_what_axi4_lite_forbids(library: ctypes.CDLL, told: str, edges: list[dict]) -> None:
    lite = Lite(library)
    for pins in edges[:-1]:
        assert lite.edge(**pins) == ""
    assert lite.edge(**edges[-1]) == told
    lite.edge(running=0, rvalid=1)
    assert lite.edge(rvalid=1) == "R reset"


@pytest.mark.parametrize("seed", range(6))
def test_legal_traffic_passes(library: ctypes.CDLL, seed: int) -> None:
    """Master and slave that keep the rules, at random: data before addresses, errors, stalls,
    narrow and unaligned bursts of every type."""
    rng = random.Random(seed)
    port = Port(library)
    busy = rng.choice([0.2, 0.5, 0.9])
    offers: dict[str, dict] = {}  # what each channel holds
    reads: list[list] = []  # id, beats left
    addresses: list[dict] = []  # bursts that were offered and whose data are not all sent
    in_flight: list[list] = []  # id, address taken, last beat taken
    sent = 0
    for _ in range(4000):
        for channel, size, burst, prefix in (
            ("ar", "arsize", "arburst", "ar"), ("aw", "awsize", "awburst", "aw")
        ):  # fmt: skip
            if channel not in offers and rng.random() < busy and len(addresses) < 4:
                width, kind = rng.randrange(4), rng.choice([INCR, INCR, FIXED, WRAP])
                beats = rng.choice([2, 4, 8, 16]) if kind == WRAP else rng.randint(1, MOST)
                address = rng.randrange(1 << 40)
                if kind == WRAP:
                    address &= -1 << width
                if kind == INCR:
                    address = address & ~0xFFF | rng.randrange(0x1000 - (beats << width) + 1)
                offers[channel] = {
                    prefix + "addr": address, prefix + "len": beats - 1, size: width, burst: kind,
                    prefix + "id": rng.getrandbits(1),
                }  # fmt: skip
                if channel == "aw":
                    addresses.append(offers["aw"] | {"beat": 0})
                    in_flight.append([offers["aw"]["awid"], False, False])
        if "w" not in offers and addresses and rng.random() < busy:
            b = addresses[0]
            size = 1 << b["awsize"]
            start = b["awaddr"] & -size
            at = start + b["beat"] * size
            if b["awburst"] == FIXED:
                at = start
            if b["awburst"] == WRAP:
                block = size * (b["awlen"] + 1)
                at = start // block * block + (start + b["beat"] * size) % block
            allowed = ((1 << size) - 1) << at % BYTES
            if b["beat"] == 0 or b["awburst"] == FIXED:
                allowed &= -1 << (at % BYTES + b["awaddr"] % size)
            last = b["beat"] == b["awlen"]
            offers["w"] = {"wdata": rng.getrandbits(64), "wstrb": rng.getrandbits(8) & allowed,
                           "wlast": last}  # fmt: skip
            b["beat"] += 1
            if last:
                addresses.pop(0)
        if "r" not in offers and reads and rng.random() < busy:
            reads[0][1] -= 1
            offers["r"] = {
                "rid": reads[0][0], "rlast": not reads[0][1], "rdata": rng.getrandbits(64),
                "rresp": rng.choice([OKAY, SLVERR, 3]),
            }  # fmt: skip
            if not reads[0][1]:
                reads.pop(0)
        if "b" not in offers and in_flight and all(in_flight[0][1:]) and rng.random() < busy:
            offers["b"] = {"bid": in_flight.pop(0)[0], "bresp": rng.choice([OKAY, SLVERR])}
        pins = {}
        for channel, payload in offers.items():
            pins |= payload | {f"{channel}valid": 1}
        for channel in ("ar", "aw", "w", "r", "b"):
            pins[f"{channel}ready"] = rng.random() < busy
        assert port.edge(**pins) == ""
        for channel in [c for c in offers if pins[f"{c}ready"]]:
            payload = offers.pop(channel)
            sent += 1
            if channel == "ar":
                reads.append([payload["arid"], payload["arlen"] + 1])
            elif channel == "aw":
                next(b for b in in_flight if not b[1])[1] = True
            elif channel == "w" and payload["wlast"]:
                next(b for b in in_flight if not b[2])[2] = True
    assert sent > 500
