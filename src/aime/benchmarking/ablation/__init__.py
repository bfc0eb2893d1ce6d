"""Ablation: the complete model and variants without one part, trained for equal wall time."""
