"""Frame and context to latent, belief to mixture, latent and map to frame."""
