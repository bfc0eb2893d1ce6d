"""How well the recorded state is predicted linearly from each part of a model, on episodes left out of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from aime.data.state_names import entries_by_name
from aime.inference.inspection.result import Figure, Probe
from aime.inference.probe import (
    FOLDS,
    WARM_UP,
    ProbeScores,
    StateColumns,
    fit_ridge,
    is_angle,
    r_squared_intervals,
    score_probe,
)
from aime.primitives.intervals import Interval, interval_over, known_mean


class ProbedParts(NamedTuple):
    """The errors of probes of several parts on the same episodes."""

    scores: dict[str, ProbeScores]
    """By part; empty where there are no states, or fewer than two episodes with known ones."""
    groups: dict[str, list[int]]
    """The columns of "all" numbers of the state, then those of each field."""

    @property
    def probes(self) -> tuple[Probe, ...]:
        """For each part the mean R² over all numbers of the state, then each field, with intervals over episodes."""
        found = []
        for part, scores in self.scores.items():
            intervals = r_squared_intervals([scores], list(self.groups.values()))
            found += [Probe(part, name, Figure.of(each)) for name, each in zip(self.groups, intervals, strict=True)]
        return tuple(found)

    def ratio(self, above: str, below: str) -> Interval | None:
        """The mean R² of one part over that of another, with its interval over episodes; None without either.

        NaN where the latter is not above 0.
        """
        if above not in self.scores or below not in self.scores:
            return None
        scores = self.scores[above], self.scores[below]

        def figure(counts: Float64[np.ndarray, "R E"]) -> Float64[np.ndarray, " R"]:
            top, bottom = (known_mean(each.r_squared(counts)) for each in scores)
            return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)

        return interval_over(figure, range(len(scores[0].frames)))


@torch.inference_mode()
def probe_parts(
    parts: Mapping[str, Float[Tensor, "B T F"]],
    states: Float[Tensor, "B T S"] | None,
    episodes: Int64[np.ndarray, " B"],
    names: Mapping[str, int],
) -> ProbedParts:
    """A ridge regression of the state from each part.

    Each episode is predicted by a ridge that was fitted to other ones: episodes are divided into at most `FOLDS`
    groups, each left out in turn (Stone 1974, "Cross-validatory choice and assessment of statistical predictions").
    The first `WARM_UP` frames of a clip do not count.

    Args:
        parts: what the state is predicted from, by name; features of B clips of T frames.
        states: in their own units, NaN where not known; None where none were recorded.
        episodes: the number of the episode of each clip.
        names: the fields of the state and their widths, in order; empty where they have no names.
    """
    if states is None:
        return ProbedParts({}, {})
    flat = states[:, WARM_UP:].flatten(0, 1).double().cpu()
    known = flat.isfinite().all(dim=-1)
    clip = torch.from_numpy(np.unique(episodes, return_inverse=True)[1])
    episode = clip[:, None].expand(states.shape[:2])[:, WARM_UP:].flatten()[known]
    if len(episode.unique()) < 2:
        return ProbedParts({}, {})
    truth = flat[known]
    columns = StateColumns(is_angle(truth, names))
    targets, entries = columns(truth), columns.entries
    groups = {"all": list(range(len(entries)))}
    for name, numbers in entries_by_name(names).items():
        groups[name] = [column for column, entry in enumerate(entries) if entry in numbers]
    scores = {}
    for part, features in parts.items():
        rows = features[:, WARM_UP:].flatten(0, 1).double().cpu()[known]
        predicted = _predicted_by_others(rows, targets, episode)
        scores[part] = score_probe(entries, predicted, targets, targets.mean(0), episode)
    return ProbedParts(scores, groups)


def _predicted_by_others(
    features: Float[Tensor, "N F"], targets: Float[Tensor, "N C"], episode: Float[Tensor, " N"]
) -> Float[Tensor, "N C"]:
    """Each row, predicted by a ridge that was fitted to rows of other episodes."""
    predicted = torch.empty_like(targets)
    group = episode.unique(return_inverse=True)[1] % FOLDS
    for number in group.unique().tolist():
        out = group == number
        predicted[out] = fit_ridge(features[~out], targets[~out], episode[~out])(features[out])
    return predicted
