"""Several masters on one SDRAM with a clock of its own: arbiter, crossing and controller."""

import random

import pytest

from .axi_master import Burst, Master, Reference, random_write
from .sdram_bench import QUICK, shared_simulation
from .test_sdram import random_bursts


@pytest.mark.parametrize(
    ("bus_hz", "sdram_hz"), [(50_000_000, 100_000_000), (61_000_000, 97_000_000)]
)
@pytest.mark.parametrize("idle", [0.0, 0.4])
def test_each_master_reads_what_it_wrote(bus_hz: int, sdram_hz: int, idle: float) -> None:
    """Three masters in memory of their own, each writing and then reading, all at once."""
    sim, arbiter, model = shared_simulation(3, bus_hz, sdram_hz)
    masters, expected = [], []
    for n in range(3):
        rng = random.Random(f"{n} {idle}")
        places = random_bursts(rng, 6, 32, n * QUICK.bytes // 4, QUICK.bytes // 4)
        bursts = [random_write(rng, *place, 32, n == 0) for place in places]
        memory = Reference(model.unwritten)
        for burst in bursts:
            memory.write(burst, 32)
        master = Master(getattr(arbiter, f"s_axi{n}"), n, idle)
        master.writes(sim, bursts)
        master.reads(sim, bursts, after=lambda m=master: len(m.answers) == 6)
        masters.append(master)
        expected.append([word for burst in bursts for word in memory.read(burst, 32)])
    sim.run()
    assert [[word for word, _, _ in m.read] for m in masters] == expected


def test_turns() -> None:
    """A master with one burst at a time gets it through while another never stops asking: it waits
    for the bursts that were taken before, and for no more."""
    sim, arbiter, model = shared_simulation(2)
    greedy = Master(arbiter.s_axi0, 1)
    greedy.reads(sim, [Burst(n * 1024, 64) for n in range(40)])
    modest = Master(arbiter.s_axi1, 2)
    modest.reads(sim, [Burst(0x10_0000 + n * 64, 1) for n in range(3)])
    sim.run()
    assert [w for w, _, _ in modest.read] == [
        word
        for n in range(3)
        for word in Reference(model.unwritten).read(Burst(0x10_0000 + n * 64, 1), 32)
    ]
    assert modest.cycles[-1] < greedy.cycles[-1] * 0.9


def test_a_bus_word_a_cycle() -> None:
    """The SDRAM at twice the clock keeps a bus of twice its width busy: 4 bytes a cycle."""
    sim, arbiter, _ = shared_simulation(2)
    master = Master(arbiter.s_axi1, 1)
    master.reads(sim, [Burst(n * 1024, 256) for n in range(16)])
    sim.run()
    cycles = master.cycles[-1] - master.cycles[0] + 1
    rate = len(master.read) * 4 / cycles
    print(f"{rate:.3f} bytes a cycle of the bus")
    assert rate > 3.84
