"""The serial link between host and accelerator: frames, and both ends as executable specifications."""
