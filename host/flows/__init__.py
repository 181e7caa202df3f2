"""Flows that take a configuration to a board: one module each, chosen by the board's `flow`."""
