"""The control port's generated Verilog against cocotbext-axi's AXI4-Lite master."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from terntable.hw.axi.control import CONSTANTS, ControlPort
from terntable.hw.config import load_config
from terntable.hw.flat import Flat, to_verilog
from terntable.hw.regs import ADDRESS, MAGIC, REGISTERS, VERSION, Access
from terntable.sim.harness import run_block

CONFIG = load_config("test")


async def start(dut, seed: int = 0, stall: float = 0.0) -> AxiLiteMaster:
    master = AxiLiteMaster(
        AxiLiteBus.from_prefix(dut, "s_axil"), dut.aclk, dut.aresetn, reset_active_level=False
    )
    rng = random.Random(seed)

    def pauses():
        while True:
            yield rng.random() < stall

    for channel in (
        master.write_if.aw_channel, master.write_if.w_channel, master.write_if.b_channel,
        master.read_if.ar_channel, master.read_if.r_channel,
    ):  # fmt: skip
        channel.set_pause_generator(pauses())
    Clock(dut.aclk, 4, "ns").start()
    for r in REGISTERS:
        if r.access is Access.RO and r.name not in CONSTANTS:
            getattr(dut, r.name.lower()).value = 0
    dut.aresetn.value = 0
    for _ in range(16):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1
    return master


@cocotb.test()
async def check_identity(dut):
    master = await start(dut)
    assert await master.read_dword(0) == MAGIC
    assert await master.read_dword(ADDRESS["VERSION"]) == VERSION
    assert await master.read_dword(ADDRESS["CONFIG_HASH"]) == CONFIG.hash


@cocotb.test()
async def check_registers(dut):
    """Random accesses of any length and alignment against a model of the table."""
    master = await start(dut, 1, 0.4)
    rng = random.Random(2)
    model = bytearray(4 * len(REGISTERS))
    names = {r.address: r for r in REGISTERS}

    def put(name: str, value: int) -> None:
        model[ADDRESS[name] : ADDRESS[name] + 4] = value.to_bytes(4, "little")

    for name, value in (("MAGIC", MAGIC), ("VERSION", VERSION), ("CONFIG_HASH", CONFIG.hash)):
        put(name, value)
    for _ in range(150):
        for r in rng.sample(REGISTERS, 3):
            if r.access is Access.RO and r.name not in CONSTANTS:
                value = rng.getrandbits(32)
                getattr(dut, r.name.lower()).value = value
                put(r.name, value)
        length = rng.randint(1, 12)
        address = rng.randint(0, len(model) - length)
        if rng.random() < 0.5:
            written = rng.randbytes(length)
            answer = await master.write(address, written)
            for at, byte in enumerate(written, address):
                if names[at & ~3].access is Access.RW:
                    model[at] = byte
        else:
            answer = await master.read(address, length)
            assert answer.data == model[address : address + length]
        assert answer.resp == AxiResp.OKAY
    for r in REGISTERS:
        if r.access is Access.RW:
            expected = model[r.address : r.address + 4]
            assert int(getattr(dut, r.name.lower()).value).to_bytes(4, "little") == expected


@cocotb.test()
async def check_control_strobes(dut):
    master = await start(dut)
    seen = []

    async def watch():
        while True:
            await RisingEdge(dut.aclk)
            if int(dut.control.value):
                seen.append(int(dut.control.value))

    cocotb.start_soon(watch())
    for value in (1, 2, 4, 7, 0, 8):
        await master.write_dword(ADDRESS["CONTROL"], value)
        assert await master.read_dword(ADDRESS["CONTROL"]) == 0
    await master.write(ADDRESS["CONTROL"] + 1, b"\1")
    assert seen == [1, 2, 4, 7]


@cocotb.test()
async def check_no_register(dut):
    master = await start(dut)
    beyond = REGISTERS[-1].address + 4
    assert (await master.read(beyond, 4)).resp == AxiResp.SLVERR
    assert (await master.write(beyond, b"abcd")).resp == AxiResp.SLVERR
    assert (await master.read(0, 4)).resp == AxiResp.OKAY


def test_control():
    run_block(to_verilog(Flat(ControlPort(CONFIG)), "port"), top="port", module=__file__)
