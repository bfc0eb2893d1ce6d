"""Protocols that others have set, from their data to one table."""
