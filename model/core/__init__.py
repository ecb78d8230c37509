"""Golden model of the core: LXE and DRE behind one memory port, run by programs in memory."""
