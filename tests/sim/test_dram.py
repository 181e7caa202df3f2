"""The DRAM model: measured cycles are those its parameters promise."""

from dataclasses import replace

import numpy as np
import pytest
import standin

from terntable.host.devices.base import DeviceError
from terntable.host.devices.sim import SimDevice
from terntable.sim.dram import DramModel, Fault, Stalls

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


@pytest.mark.parametrize(
    ("where", "command"),
    [
        ("m_axi0, channel AR, rule stable", (standin.BREAK, "changing address")),
        ("m_axi0, channel AR, rule held", (standin.BREAK, "withdrawn address")),
        ("m_axi0, channel W, rule last", (standin.BREAK, "no last")),
        ("m_axi0, channel W, rule stable", (standin.BREAK, "changing data")),
        ("s_axil, channel R, rule order", (standin.BREAK, "unasked data")),
        ("m_axi0, channel AR, rule 4KiB", (standin.READ, "source", (1 << 16) - 16)),
        ("m_axi0, channel AR, rule length", (standin.READ, "beats", 17)),
        ("m_axi1, channel AR, rule 4KiB", (standin.READ, "stride", 4096 - 16)),
    ],
)
def test_a_broken_protocol_is_told_with_port_channel_rule_and_cycle(where, command):
    fields = {"source": 1 << 16, "to": 1 << 18, "bursts": 200, "beats": 4, "stride": 0}
    if command[0] == standin.BREAK:
        fields["stride"] = standin.BREAKS.index(command[1])
    else:
        fields[command[1]] = command[2]
    with device(2, stress_seed=1) as sim:
        with pytest.raises(DeviceError, match=f"^AXI protocol: port {where}, cycle [0-9]+: ") as e:
            call(sim, command[0], **fields)
        assert "\n" not in str(e.value)
        # A hardware reset clears the bus and what the checker has seen.
        sim.reset()
        data = bytes(range(64))
        sim.write(1 << 16, data)
        call(sim, standin.COPY, source=1 << 16, to=1 << 18, bursts=1, beats=4)
        assert sim.read(1 << 18, 64) == data


def test_a_slave_that_breaks_the_protocol_between_requests():
    with device(1) as sim:
        sim.write(standin.PROGRAM_AT, standin.command(standin.BREAK, bursts=200, beats=4, stride=3))
        sim.start(1, 0)
        with pytest.raises(DeviceError, match="port s_axil, channel R, rule order"):
            sim.run(200)


@pytest.fixture(scope="module")
def cycles_of():
    """Cycles of a transfer on a stand-in whose memory behaves in a given way."""
    devices = {}

    def measure(dram, op=standin.READ, ports=1, **fields):
        if ports not in devices:
            devices[ports] = device(ports)
        devices[ports].reset(dram)
        values = {"source": 1 << 16, "to": 1 << 18, "bursts": 1, "beats": 4}
        return call(devices[ports], op, **values | fields).cycles

    yield measure
    for sim in devices.values():
        sim.close()


def test_times_of_their_own_for_ports_and_writes(cycles_of):
    clock = 250_000_000
    plain = cycles_of(DramModel())
    assert cycles_of(DramModel(port_latency=(1e-6,))) == plain + clock / 1e6
    # Two ports are as slow as the slower one.
    assert cycles_of(DramModel(port_latency=(0.0, 2e-6)), ports=2) == plain + 2 * clock / 1e6
    copy = cycles_of(DramModel(), standin.COPY)
    assert cycles_of(DramModel(write_latency=3.15e-6), standin.COPY) == copy + 3 * clock / 1e6
    jittered = {cycles_of(DramModel(jitter=1e-6, stress_seed=s)) - plain for s in range(4)}
    assert len(jittered) > 1 and all(0 <= n <= 250 + 64 for n in jittered)


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_each_channel_stalls_by_itself(cycles_of, channel):
    quiet = Stalls(0, 0, 0, 0, 0, pause=0)
    fields = {"bursts": 100, "beats": 4}
    free = cycles_of(DramModel(outstanding=1), standin.COPY, **fields)
    assert cycles_of(DramModel(outstanding=1, stalls=quiet), standin.COPY, **fields) == free
    stalled = DramModel(outstanding=1, stress_seed=2, stalls=replace(quiet, **{channel: 0.9}))
    assert cycles_of(stalled, standin.COPY, **fields) > 1.03 * free


def test_a_shy_memory_waits_for_valid(cycles_of):
    shy = Stalls(0, 0, 0, 0, 0, pause=0, shy=True)
    free = cycles_of(DramModel(), standin.COPY, bursts=50)
    assert cycles_of(DramModel(stalls=shy), standin.COPY, bursts=50) > free + 50


def test_errors_of_reads_or_of_writes_alone():
    for kind in "rw":
        fault = Fault(1 << 17, 64, kind)
        with device(1, dram=DramModel(errors=(fault,))) as sim:
            reads = {"source": 1 << 17, "to": 1 << 18}
            writes = {"source": 1 << 18, "to": 1 << 17}
            bad, good = (reads, writes) if kind == "r" else (writes, reads)
            call(sim, standin.COPY, beats=4, **good)
            with pytest.raises(DeviceError, match="READ_RESPONSE"):
                call(sim, standin.COPY, beats=4, **bad)


@pytest.mark.parametrize("kind", ["r", "w"])
def test_an_answer_that_never_comes(kind):
    lost = DramModel(lost=(Fault(1 << 17, 64, kind),))
    fields = {"source": 1 << (17 if kind == "r" else 18), "to": 1 << (18 if kind == "r" else 17)}
    with device(1, dram=lost, stuck=2000) as sim:
        with pytest.raises(DeviceError, match="nothing moved"):
            call(sim, standin.COPY, beats=4, **fields)
        sim.reset(DramModel())
        assert call(sim, standin.COPY, beats=4, **fields).cycles > 0


def test_a_drawn_memory_is_as_its_seed_says():
    assert DramModel.stressed(7) == DramModel.stressed(7)
    drawn = [DramModel.stressed(seed) for seed in range(200)]
    assert len({model.settings(100_000_000) for model in drawn}) == 200
    stalls = [model.stalls for model in drawn]
    assert all(stalls) and 60 < sum(s.shy for s in stalls) < 140
