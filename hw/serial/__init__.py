"""The accelerator behind a serial line: UART, bridge, and the design of a board."""
