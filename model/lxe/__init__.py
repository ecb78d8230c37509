"""Golden model of the LLM execution engine."""
