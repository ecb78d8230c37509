"""COIN's five tasks for video LLMs, as VideoLLM-Online asks and scores them."""
