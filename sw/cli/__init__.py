"""One module for each subcommand of ``vrex``: its arguments and what it does with them."""
