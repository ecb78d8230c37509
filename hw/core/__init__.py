"""The core: LXE and DRE behind one AXI4 port, run by programs in memory (model `vrex.model.core`)."""
