"""Lets tests and the simulator's processes import this folder's modules by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
