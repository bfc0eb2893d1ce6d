"""Ablation, and the protocols of others: from data to one table."""
