"""A Vivado project for boards with a Zynq UltraScale+: nothing here has been run on a board."""
