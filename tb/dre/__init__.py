"""Testbenches of the retrieval engine's units."""
