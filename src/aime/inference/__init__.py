"""Judging and showing what a trained run predicts."""

from __future__ import annotations

from aime.inference.evaluate import evaluate_run
from aime.inference.evaluation import Evaluation
from aime.inference.inspection import Inspection, inspect_run
from aime.inference.predict import predict_run
from aime.inference.report import write_report
from aime.inference.request import EvaluationRequest

__all__ = [
    "Evaluation",
    "EvaluationRequest",
    "Inspection",
    "evaluate_run",
    "inspect_run",
    "predict_run",
    "write_report",
]
