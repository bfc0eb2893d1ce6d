"""A ridge regression by another way: NumPy's least squares, with rows that pull the weights to 0."""

from __future__ import annotations

import numpy as np

from aime.inference.probe import PENALTIES


def least_squares(inputs: np.ndarray, targets: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    """What a ridge fitted to inputs and targets says of the test rows; a constant column counts for nothing."""
    centre, scale = inputs.mean(0), inputs.std(0, ddof=1).clip(1e-8)
    return pulled(
        (inputs - centre) / scale, targets - targets.mean(0), (test - centre) / scale, penalty
    ) + targets.mean(0)


def pulled(inputs: np.ndarray, targets: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    """The same of inputs and targets as they are."""
    rows = np.sqrt(penalty * len(inputs)) * np.eye(inputs.shape[1])
    weights, *_ = np.linalg.lstsq(
        np.concatenate([inputs, rows]), np.concatenate([targets, np.zeros((len(rows), targets.shape[1]))]), rcond=None
    )
    return test @ weights


def held_by_what_is_left_out(
    inputs: np.ndarray, targets: np.ndarray, test: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, list[float]]:
    """The same with the penalty of each column that errs least on folds left out, and these penalties."""
    x = (inputs - inputs.mean(0)) / inputs.std(0, ddof=1).clip(1e-8)
    y = targets - targets.mean(0)
    error = [
        sum(
            ((pulled(x[fold != out], y[fold != out], x[fold == out], penalty) - y[fold == out]) ** 2).sum(0)
            for out in np.unique(fold)
        )
        for penalty in PENALTIES
    ]
    chosen = [PENALTIES[best] for best in np.argmin(error, 0)]
    columns = [least_squares(inputs, targets[:, [column]], test, penalty) for column, penalty in enumerate(chosen)]
    return np.concatenate(columns, 1), chosen
