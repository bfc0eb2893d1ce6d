"""Latent, context and action to the belief."""
