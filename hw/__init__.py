"""The hardware in Amaranth, one unit a file, named as in the paper."""
