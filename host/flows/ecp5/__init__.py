"""ECP5 boards: Yosys, nextpnr and Project Trellis, all from Python wheels."""
