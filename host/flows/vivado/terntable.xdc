# Constraints beyond those of the IP. Not run on a board so far.
#
# The design has no pins, and one clock: the clocking wizard brings its period, the reset block its
# exceptions. A compressed bitstream loads in less time.
set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]
