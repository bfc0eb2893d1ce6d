"""Data in and out: what other projects and environments make, as shards, and shards as they read them."""
