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

DEFAULT = "resv-bits"
"""The policy where none is named: the least loss at equal bytes on both models (docs/decisions.md)."""

FALLBACK = "resv"
"""The one where none is named and what is asked for knows no codes, or is the paper's own engine."""
