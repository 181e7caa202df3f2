"""How many cycles a call takes, from configuration and dimensions alone.

The program of a model is run by command as the sequencer runs it, with formulas in place of units
(`units.py`) and rates in place of beats (`bus.py`). It needs neither weights, nor the gateware's
packages, nor a simulator.
"""

from terntable.host.cycles.predict import Prediction, predict

__all__ = ["Prediction", "predict"]
