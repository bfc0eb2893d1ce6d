"""The effect of every part of a trained model, by interventions on clips that it never trained on."""

from __future__ import annotations

from aime.inference.inspection.inspect import INSPECTION, inspect_run
from aime.inference.inspection.result import Inspection

__all__ = ["INSPECTION", "Inspection", "inspect_run"]
