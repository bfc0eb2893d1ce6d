"""The complete model against itself with one part switched off, at equal wall time."""
