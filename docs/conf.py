"""Sphinx configuration: `sphinx-build docs out/docs`."""

project = "Terntable"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["out"]
