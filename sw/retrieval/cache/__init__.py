"""Hierarchical KV cache: device memory, host memory, then a file that survives a crash."""
