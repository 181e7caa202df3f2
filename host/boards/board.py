"""A board as data: its part, the flow that builds for it, how the host reaches it."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from terntable.hw.config import AcceleratorConfig
from terntable.hw.demand import check_fits
from terntable.hw.errors import UserError
from terntable.hw.parts import PARTS, Part


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Uio(_Data):
    """Linux on the board's processor: registers through UIO, memory through u-dma-buf."""

    kind: Literal["uio"]
    device: str = Field(description="name of the UIO device")
    buffer: str = Field(description="name of the u-dma-buf device")
    buffer_bytes: int = Field(gt=0, description="contiguous memory that the overlay asks for")


class Serial(_Data):
    """A host at the other end of a serial line."""

    kind: Literal["serial"]
    baud: int = Field(gt=0)


class VivadoBoard(_Data):
    """What a Vivado project of a Zynq UltraScale+ board needs."""

    device: str = Field(description="the part's ordering code")
    board_part: str = Field(description="Vivado's board files, a pattern")
    reference_hz: int = Field(description="clock of the PS that the fabric's clock is made of")
    registers: int = Field(description="bus address of the control port, behind HPM0")
    interrupt: int = Field(description="shared peripheral interrupt of pl_ps_irq0")


class Ecp5Board(_Data):
    """What nextpnr needs to know of an ECP5 board."""

    device: str = Field(description="nextpnr's option for the die")
    package: str
    speed: int
    seed: int = Field(description="of the placement, unless the user gives one")


class Board(_Data):
    """One board. `config` is what is built unless the user says otherwise."""

    name: str
    title: str
    part: str
    config: str
    flow: Literal["vivado", "ecp5"]
    max_clock_hz: int
    connect: Annotated[Uio | Serial, Field(discriminator="kind")]
    vivado: VivadoBoard | None = None
    ecp5: Ecp5Board | None = None

    @model_validator(mode="after")
    def _check(self) -> Board:
        if self.part not in PARTS:
            raise ValueError(f"part {self.part!r} is not in hw/parts.py")
        if getattr(self, self.flow) is None:
            raise ValueError(f"flow is {self.flow!r}: a section {self.flow!r} is missing")
        kind = {"vivado": "uio", "ecp5": "serial"}[self.flow]
        if self.connect.kind != kind:
            raise ValueError(f"connect is {self.connect.kind!r}: flow {self.flow!r} wants {kind!r}")
        return self

    @property
    def uio(self) -> Uio:
        """How the host reaches a board with a processor."""
        assert isinstance(self.connect, Uio)  # see _check
        return self.connect

    @property
    def serial(self) -> Serial:
        """How the host reaches a board with a serial line."""
        assert isinstance(self.connect, Serial)  # see _check
        return self.connect

    @property
    def fpga(self) -> Part:
        return PARTS[self.part]

    def chosen(self, config: str | None) -> str:
        """The configuration that a user has named, or else the board's own."""
        return self.config if config is None else config

    def with_seed(self, seed: int) -> Board:
        """The same with another seed of the placement. Raises UserError where none is taken."""
        if self.ecp5 is None:
            raise UserError(f"--seed is {seed}: {self.name} is not placed here, leave it out")
        return self.model_copy(update={"ecp5": self.ecp5.model_copy(update={"seed": seed})})

    def check(self, config: AcceleratorConfig) -> None:
        """Raise UserError when `config` is for another part, too fast or too large."""
        if config.part not in (None, self.part):
            raise UserError(
                f"{config.name} is for part {config.part}, {self.name} has {self.part}: choose"
                f" another configuration ({self.config} is made for it)"
            )
        if config.clock_hz > self.max_clock_hz:
            raise UserError(
                f"{config.name} has a clock of {config.clock_hz / 1e6:g} MHz,"
                f" {(config.clock_hz - self.max_clock_hz) / 1e6:g} over the"
                f" {self.max_clock_hz / 1e6:g} that {self.name} allows: lower clock_hz"
            )
        check_fits(config, self.fpga)


def named_boards() -> list[str]:
    """Names that `load_board` knows, sorted."""
    folder = resources.files("terntable.host.boards")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_board(name: str) -> Board:
    """A board by name. Raises UserError that lists the known ones."""
    if name not in named_boards():
        raise UserError(f"unknown board {name!r}: choose from {', '.join(named_boards())}")
    file = resources.files("terntable.host.boards") / f"{name}.yaml"
    return Board.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
