"""Frame and context to latent; latent and map to frame; the discriminators of frames."""
