"""vrex: open hardware for streaming video LLMs with KV-cache retrieval, and its use from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrex.sw.retrieval.hf import Session, retrieval

__all__ = ["Session", "retrieval"]


def __getattr__(name: str) -> Any:
    """The plug-in's names; torch is imported when one is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vrex.sw.retrieval import hf

    return getattr(hf, name)
