"""The host's end of the serial link. Importing this needs no gateware package and no port."""
