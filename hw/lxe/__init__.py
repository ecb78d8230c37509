"""LXE: the engine for matrices and vectors (paper Section V-A)."""
