"""What runs beside the accelerator: checkpoints, compiler, emulator, devices, command line."""

import os

# The emulator's products are small: more threads than one cost more than they give, and far more
# on a busy machine. Read when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
