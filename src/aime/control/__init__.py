"""Belief and latent to what they are worth and what is done: reward, continuation, the action schema."""
