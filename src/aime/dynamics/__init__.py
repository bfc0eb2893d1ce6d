"""All that runs on vectors: latent, context and action to belief, prior and what the heads read."""
