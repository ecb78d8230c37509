"""A video through the video LLM with a retrieval policy and an accelerator behind it, in one object."""
