"""Retrieval policies: which past tokens a chunk attends to."""

NAMES = (
    "full",
    "flexgen",
    "infinigen",
    "infinigen-p",
    "rekv",
    "oaken",
    "resv",
    "resv-bits",
    "resv-nocluster",
    "topk",
    "streaming-llm",
    "quest",
)
"""Every policy of `vrex.sw.retrieval.policies.registry`, which takes longer to import."""
