"""Selection of tokens by codes in memory (policy `resv-bits`)."""
