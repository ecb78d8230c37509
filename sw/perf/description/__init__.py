"""What is simulated: systems, models and methods, read from TOML files."""
