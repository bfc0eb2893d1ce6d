"""Losses to one gradient: balancers, which know nothing of models and data."""
