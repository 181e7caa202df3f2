"""Boards that are known, one file each."""
