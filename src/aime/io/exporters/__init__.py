"""Exporters to the formats of other projects, one per file; see `aime.io.exporters.interface`."""
