"""Training of streaming video LLMs on ProcStream, with transformers' classes (extra `hf`)."""
