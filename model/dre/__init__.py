"""Golden model of the retrieval engine."""
