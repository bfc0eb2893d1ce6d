"""Data sets of other projects, made into shards: one importer a file, behind `aime.io.importers.interface`."""
