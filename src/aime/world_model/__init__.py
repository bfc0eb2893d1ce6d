"""The pillars, joined: the model, its sizes, its typed outputs, and models on disk."""
