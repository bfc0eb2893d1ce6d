"""What is read from belief, latent and its last step: reward, continuation, action, state."""
