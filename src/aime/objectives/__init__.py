"""The model's typed outputs and the batch to named losses."""
