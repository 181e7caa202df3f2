"""Boards whose own processor runs Linux: registers and interrupt by UIO, memory by u-dma-buf.

Nothing but the standard library, on a board's own Python. `Registers` and `Interrupt` are what
tests replace, and `Caches`; all above them is the same everywhere.
"""
