"""What a flow's tools do wrong."""

from __future__ import annotations


class FlowError(RuntimeError):
    """A tool refused the design or died; the text is one line and names its log."""
