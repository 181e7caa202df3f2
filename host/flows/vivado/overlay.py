"""The device-tree overlay that loads the bitstream and gives Linux the accelerator."""

from __future__ import annotations

from terntable.hw.config import AcceleratorConfig

from ...boards.board import Uio, VivadoBoard

REGISTER_BYTES = 4096

HP_BITS = (128, 64, 32)
"""Data widths of a slave port of the PS; the position is what the AFI's width fields take."""

_HP0_AFI = 2
"""AFIFM number of S_AXI_HP0_FPD: 0 and 1 are the coherent ports."""

_AFI_FS = 14
"""Register id of the widths of HPM0 and HPM1."""
_AFI_FS_32_BITS = 0

_PL0_CLOCK = 71
"""Number of PL0_REF in the firmware's clocks."""
_PL0_RESET = 116
"""Number of pl_resetn0 in the firmware's resets."""


def hp_bits(config: AcceleratorConfig) -> int:
    """Width of the PS's ports: the accelerator's, or the widest there is."""
    return min(config.bus_bits, HP_BITS[0])


def afi_registers(config: AcceleratorConfig) -> list[tuple[int, int]]:
    """(register id, value) pairs that set the widths of the ports in use, read and write."""
    value = HP_BITS.index(hp_bits(config))
    pairs = []
    for port in range(config.ports):
        first = 2 * (_HP0_AFI + port)
        pairs += [(first, value), (first + 1, value)]
    return [*pairs, (_AFI_FS, _AFI_FS_32_BITS)]


def _cells(value: int) -> str:
    return f"{value >> 32:#x} {value & 0xFFFFFFFF:#x}"


def overlay(
    config: AcceleratorConfig, uio: Uio, board: VivadoBoard, firmware: str, note: str
) -> str:
    """Source of the overlay (dtc's .dtso); `firmware` names the bitstream, `note` is its comment.

    The widths of the AXI ports are those of the bitstream: the boot firmware has others, and a
    port of another width hangs. The buffer is below 4 GiB; it lies in the kernel's contiguous
    memory unless a memory-region is added.
    """
    # Cells of an interrupt: shared, number, level high.
    afi = ", ".join(f"<{number} {value:#x}>" for number, value in afi_registers(config))
    return f"""\
/* {note} */
/dts-v1/;
/plugin/;

/* Programs the fabric before the devices below are probed. */
&fpga_full {{
	#address-cells = <2>;
	#size-cells = <2>;
	firmware-name = "{firmware}";
	resets = <&zynqmp_reset {_PL0_RESET}>;
}};

&amba {{
	#address-cells = <2>;
	#size-cells = <2>;

	/* Widths of the memory ports (0: 128 bits, 1: 64, 2: 32) and of the registers' port. */
	terntable_afi: afi {{
		compatible = "xlnx,afi-fpga";
		config-afi = {afi};
	}};

	/* The reference of the clocking wizard in the fabric. */
	terntable_clock: clocking {{
		compatible = "xlnx,fclk";
		#clock-cells = <0>;
		clocks = <&zynqmp_clk {_PL0_CLOCK}>;
		assigned-clocks = <&zynqmp_clk {_PL0_CLOCK}>;
		assigned-clock-rates = <{board.reference_hz}>;
		clock-output-names = "fabric_clk";
	}};

	/* /dev/uioN whose name is {uio.device}: registers and interrupt. */
	terntable_registers: {uio.device}@{board.registers:x} {{
		compatible = "generic-uio";
		linux,uio-name = "{uio.device}";
		reg = <{_cells(board.registers)} {_cells(REGISTER_BYTES)}>;
		interrupt-parent = <&gic>;
		interrupts = <0 {board.interrupt} 4>;
	}};

	/* /dev/{uio.buffer}: contiguous memory for images. */
	terntable_buffer: {uio.buffer} {{
		compatible = "ikwzm,u-dma-buf";
		device-name = "{uio.buffer}";
		size = <{_cells(uio.buffer_bytes)}>;
		dma-mask = <32>;
	}};
}};
"""
