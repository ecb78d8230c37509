"""Evaluations: policies compared on ProcStream, on text and on COIN; figures, reports and benchmarks."""
