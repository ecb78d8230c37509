"""The ProcStream benchmark: policies side by side on the same questions."""
