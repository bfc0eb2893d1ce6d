"""What every part of a trained model does, by interventions on clips that it never learned from."""

from __future__ import annotations

from aime.inference.inspection.inspect import INSPECTION, inspect_run
from aime.inference.inspection.result import Inspection

__all__ = ["INSPECTION", "Inspection", "inspect_run"]
