"""Sweeps over hardware, algorithm, system and workload: designs, their figures, and Pareto fronts."""
