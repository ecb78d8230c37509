"""The system simulator: what a streaming video LLM takes on a system, computed from data sheets and RTL counters."""
