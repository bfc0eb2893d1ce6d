"""Data sets in the formats of other projects: one exporter a file, behind `aime.io.exporters.interface`."""
