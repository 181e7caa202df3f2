"""Decode steps and prefills of published shapes on simulated RTL, beside what bounds them."""
