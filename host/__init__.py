"""What runs beside the accelerator: checkpoints, compiler, emulator, devices, command line."""

import os
import sys

if sys.byteorder != "little":
    raise ImportError(
        "terntable.host needs a little-endian processor: checkpoints and images, which are"
        " little-endian, are used as they lie in files and memory"
    )

# The emulator's products are small: more threads than one cost more than they give, and far more
# on a busy machine. Read when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
