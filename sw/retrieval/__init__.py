"""Retrieval policies, the KV cache in tiers, and the plug-in for transformers."""
