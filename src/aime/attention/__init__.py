"""Where the model looks: maps over the frame that sum to 1."""
