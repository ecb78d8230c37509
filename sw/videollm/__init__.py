"""The streaming video LLM in numpy: checkpoint, vision tower, connector, decoder, stream loop."""
