"""GPU kernels in Triton for what the accelerator does, for the device `triton`.

Importing a module of this package imports triton, which decides at that moment whether kernels are
compiled for a GPU or interpreted on the CPU (TRITON_INTERPRET=1): see `devices.triton`.
"""
