"""Selection of tokens by the binary codes of their keys (policy `resv-bits`)."""
