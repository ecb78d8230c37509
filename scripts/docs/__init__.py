"""Pages of the documentation site that are generated while it is built."""
