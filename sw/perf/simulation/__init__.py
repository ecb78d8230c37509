"""One step of a video LLM as tasks on resources, event by event."""
