"""The paper's figures, computed, beside its own numbers, and a verdict on each."""
