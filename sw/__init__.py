"""Everything that runs on the host: driver, video LLM, policies, reports and the command line."""
