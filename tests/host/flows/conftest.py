"""Lets the tests of this folder import their Tcl interpreter and device-tree parser."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
