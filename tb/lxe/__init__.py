"""Testbenches of the LLM execution engine's units."""
