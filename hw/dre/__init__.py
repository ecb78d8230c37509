"""Retrieval engine: HCU, WTU and KVMU, the means, and the engines they make."""
