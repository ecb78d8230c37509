"""The testbenches in cocotb, one unit a file, and the regression that runs them."""
