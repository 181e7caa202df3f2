"""A board as data: its part, the flow that builds for it, how the host reaches it."""

from __future__ import annotations

from importlib import resources
from typing import Literal

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


class VivadoBoard(_Data):
    """What a Vivado project of a Zynq UltraScale+ board needs."""

    device: str = Field(description="the part's ordering code")
    board_part: str = Field(description="Vivado's board files, a pattern")
    reference_hz: int = Field(description="clock of the PS that the fabric's clock is made of")
    registers: int = Field(description="bus address of the control port, behind HPM0")
    interrupt: int = Field(description="shared peripheral interrupt of pl_ps_irq0")


class Board(_Data):
    """One board. `config` is what is built unless the user says otherwise."""

    name: str
    title: str
    part: str
    config: str
    flow: Literal["vivado"]
    max_clock_hz: int
    connect: Uio
    vivado: VivadoBoard | None = None

    @model_validator(mode="after")
    def _check(self) -> Board:
        if self.part not in PARTS:
            raise ValueError(f"part {self.part!r} is not in hw/parts.py")
        if getattr(self, self.flow) is None:
            raise ValueError(f"flow is {self.flow!r}: a section {self.flow!r} is missing")
        return self

    @property
    def fpga(self) -> Part:
        return PARTS[self.part]

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
