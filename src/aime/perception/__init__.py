"""Frames to tokens, tokens to context."""
