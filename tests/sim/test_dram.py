"""The DRAM model: measured cycles are those its parameters promise."""

import numpy as np
import pytest
import standin

from terntable.host.devices.base import DeviceError
from terntable.host.devices.sim import SimDevice
from terntable.sim.dram import DramModel

SIZE = 1 << 20
OVERHEAD = 2
"""Cycles of the stand-in besides latency and beats."""


def device(ports: int, **options):
    config = standin.config(ports)
    sim = SimDevice(config, verilog=standin.verilog(config), **options)
    sim.load(standin.image(config, SIZE))
    return sim


def call(sim, *command, **fields):
    sim.write(standin.PROGRAM_AT, standin.command(*command, **fields))
    sim.start(1, 0)
    return sim.wait()


def test_parameters_in_cycles():
    assert DramModel().latency_cycles(250_000_000) == 38
    assert DramModel().latency_cycles(100_000_000) == 15
    assert DramModel(latency=0.0).latency_cycles(100_000_000) == 1
    assert DramModel().bytes_per_cycle(250_000_000) == 56


@pytest.mark.parametrize(("latency", "cycles"), [(150e-9, 38), (1e-6, 250)])
def test_first_beat_comes_after_the_latency(latency, cycles):
    with device(1, dram=DramModel(latency=latency)) as sim:
        for beats in (1, 4, 16):
            result = call(sim, standin.READ, bursts=1, beats=beats)
            assert result.cycles == cycles + beats + OVERHEAD


def test_a_port_moves_a_bus_word_a_cycle():
    with device(1) as sim:
        result = call(sim, standin.READ, bursts=400, beats=16)
        assert result.cycles == 38 + 400 * 16 + OVERHEAD


def test_ports_share_the_bandwidth():
    with device(4) as sim:
        cycles = call(sim, standin.READ, bursts=1000, beats=16, stride=1 << 12).cycles
    assert 4 * 1000 * 256 / (cycles - 38) == pytest.approx(56, rel=0.005)


def test_short_bursts_are_charged_64_bytes():
    with device(4) as sim:
        cycles = call(sim, standin.READ, bursts=2000, beats=1, stride=1 << 12).cycles
    assert 4 * 2000 * 64 / (cycles - 38) == pytest.approx(56, rel=0.01)


def test_bursts_in_flight_are_limited():
    with device(1, dram=DramModel(outstanding=2)) as sim:
        cycles = call(sim, standin.READ, bursts=200, beats=1).cycles
    assert cycles / 200 == pytest.approx(38 / 2, rel=0.1)


def test_reads_and_writes_share_the_bandwidth():
    with device(1, dram=DramModel(bandwidth=4e9)) as sim:
        cycles = call(sim, standin.COPY, source=4096, to=1 << 19, bursts=500, beats=16).cycles
    assert 2 * 500 * 256 / cycles == pytest.approx(16, rel=0.03)


def test_copies_and_repeats_exactly_under_stress():
    data = np.random.default_rng(1).bytes(200 * 256)
    cycles = []
    for seed in (None, 1, 2, 2):
        with device(1, stress_seed=seed) as sim:
            sim.write(1 << 16, data)
            result = call(sim, standin.COPY, source=1 << 16, to=1 << 19, bursts=200, beats=16)
            assert sim.read(1 << 19, len(data)) == data
            cycles.append(result.cycles)
    assert cycles[1] > 1.2 * cycles[0]
    assert cycles[1] != cycles[2] == cycles[3]


def test_writes_are_visible_when_the_call_ends_and_nothing_else_changes():
    with device(1) as sim:
        sim.write(1 << 16, bytes(range(256)))
        call(sim, standin.COPY, source=1 << 16, to=1 << 18, bursts=1, beats=4)
        assert sim.read(1 << 18, 80) == bytes(range(64)) + bytes(16)


def test_injected_errors():
    with device(1, dram=DramModel(errors=((1 << 17, 64),))) as sim:
        with pytest.raises(DeviceError, match="READ_RESPONSE") as e:
            call(sim, standin.READ, source=1 << 17, bursts=1, beats=4)
        assert e.value.unit == "load"
        assert e.value.address == 1 << 17
        assert call(sim, standin.READ, source=1 << 16, bursts=1, beats=4).cycles > 0


def test_an_access_outside_the_image():
    with device(1) as sim:
        with pytest.raises(DeviceError, match="READ_RESPONSE"):
            call(sim, standin.READ, source=SIZE, bursts=1, beats=4)


def test_protocol_errors_are_reported():
    with device(1) as sim:
        with pytest.raises(DeviceError, match="broke the AXI protocol") as e:
            call(sim, standin.BREAK, source=4096 + 16, bursts=1 << 20, beats=256)
        assert "crosses 4 KiB" in str(e.value)
