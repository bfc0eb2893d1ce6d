"""A run while it lasts: its schedule and budget, its log and display, and the processes that share it."""
