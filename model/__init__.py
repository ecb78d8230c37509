"""The golden model: what the hardware must compute, bit for bit, in numpy and without a clock."""
