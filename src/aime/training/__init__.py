"""Training: the loop, its phases, optimizers, averaged weights and checkpoints."""
