"""vrex: open hardware for streaming video LLMs with KV-cache retrieval, and its use from Python."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrex.sw.retrieval.hf import Session, retrieval
    from vrex.sw.session.session import VideoSession, open_session

__all__ = ["Session", "VideoSession", "open_session", "retrieval"]

_MODULES = {
    "Session": "vrex.sw.retrieval.hf",
    "VideoSession": "vrex.sw.session.session",
    "open_session": "vrex.sw.session.session",
    "retrieval": "vrex.sw.retrieval.hf",
}


def __getattr__(name: str) -> Any:
    """The public names, whose modules are imported when one is used: torch for the plug-in's."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
