"""The system simulator: a streaming video LLM on a system, from data sheets and RTL counters."""
