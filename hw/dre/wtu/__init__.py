"""WiCSum threshold unit (paper Section V-B)."""
