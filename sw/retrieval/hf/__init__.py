"""Retrieval for models of Hugging Face transformers (extra `hf`)."""

from vrex.errors import UserError

try:
    import torch as _torch
    import transformers as _transformers
except ImportError as error:
    raise UserError(f"the Hugging Face plug-in needs the package {error.name}; install vrex[hf]") from error

from vrex.sw.retrieval.hf.session import Session, retrieval

__all__ = ["Session", "retrieval"]
del _torch, _transformers
