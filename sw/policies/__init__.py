"""Retrieval policies: which past tokens a chunk attends to."""
