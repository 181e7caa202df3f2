"""A whole board in Verilator behind a serial port of this machine: link, accelerator, memory
controller, SDRAM; the host in front is the one that a board has."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from terntable.host.image import Image
from terntable.host.link.port import SerialPort
from terntable.hw.config import AcceleratorConfig
from terntable.hw.soc.sdram_part import SdramPart
from terntable.hw.soc.ulx3s import host_link, sdram_hz

from . import serial
from .harness import run_block
from .soc import SimulatedSoc, soc_verilog

_HERE = Path(__file__).parent


class SimulatedBoard(threading.Thread):
    """Runs the board of `config` with an SDRAM `part` from `start` to `stop`; time on it passes as
    fast as it is simulated, whether the host does something or not.

    `folder` keeps its files. With `image` the SDRAM holds that from the start, as if it had been
    loaded before.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        part: SdramPart,
        baud: int,
        folder: Path,
        *,
        image: Image | None = None,
        timeout: float = 1200,
    ) -> None:
        super().__init__(daemon=True)
        self._config, self._part, self._baud, self._timeout = config, part, baud, timeout
        self._port_file, self._stop_file, self._contents_file = (
            folder / n for n in ("port", "stop", "sdram")
        )
        self._image = image
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            config, part = self._config, self._part
            link = host_link(config, part, self._baud)
            soc = SimulatedSoc(config, part, sdram_hz(config), link)
            verilog, vlt = soc_verilog(serial.SerialBoard(soc, config.clock_hz, self._baud), config)
            run_block(
                verilog,
                top="soc",
                module=_HERE / "until_stopped.py",
                vlt=vlt,
                extra_sources=[_HERE / name for name in serial.SOURCES],
                plusargs=[f"+serial={self._port_file}", *self._preload()],
                params={
                    "stop": str(self._stop_file),
                    "period_ps": 10**12 // config.clock_hz,
                    "sdram_period_ps": 10**12 // sdram_hz(config),
                },
                timeout=self._timeout,
            )
        except BaseException as e:
            self._failure = e

    def opened(self) -> SerialPort:
        """The board's serial port, when it is there. Raises what the simulation failed with."""
        while not self._port_file.exists():
            if self._failure is not None:
                raise self._failure
            time.sleep(0.1)
        return SerialPort(self._port_file.read_text(), self._baud)

    def stop(self) -> None:
        """End the simulation. Raises what it failed with."""
        self._stop_file.touch()
        self.join()
        if self._failure is not None:
            raise self._failure

    def _preload(self) -> list[str]:
        if self._image is None:
            return []
        data = self._image.data
        words = np.zeros(-(-data.size // 2) * 2, np.uint8)
        words[: data.size] = data
        lines = "\n".join(f"{word:04x}" for word in words.view("<u2").tolist())
        self._contents_file.write_text(lines + "\n")
        return [f"+sdram={self._contents_file}"]
