"""How well the recorded state is predicted linearly from each part of a model, on episodes left out of the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from aime.data.state_names import entries_by_name
from aime.inference.inspection.result import Figure, Probe
from aime.inference.probe import (
    FOLDS,
    STILL,
    WARM_UP,
    ProbeScores,
    Ridge,
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
    rows = _Rows.of(states, episodes, names)
    if rows is None:
        return ProbedParts({}, {})
    entries = rows.columns.entries
    groups = {"all": list(range(len(entries)))}
    for name, numbers in entries_by_name(names).items():
        groups[name] = [column for column, entry in enumerate(entries) if entry in numbers]
    scores, origin = {}, rows.targets.mean(0)
    for part, features in parts.items():
        own = rows.features(features)
        predicted = torch.empty_like(rows.targets)
        for out, ridge in rows.ridges(own):
            predicted[out] = ridge(own[out])
        scores[part] = score_probe(entries, predicted, rows.targets, origin, rows.episode)
    return ProbedParts(scores, groups)


@torch.inference_mode()
def errors_on_frames(
    features: Float[Tensor, "B T F"],
    changed: Float[Tensor, "B T F"],
    states: Float[Tensor, "B T S"] | None,
    episodes: Int64[np.ndarray, " B"],
    names: Mapping[str, int],
    frames: slice,
) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B W"]] | None:
    """Errors of probes that were fitted to features of other episodes, on W frames: of these, and of changed features.

    Args:
        features: what the probes are fitted to, as in `probe_parts`.
        changed: the features of the same frames, of which some have changed.
        states: as in `probe_parts`.
        episodes: as in `probe_parts`.
        names: as in `probe_parts`.
        frames: those that are judged.

    Returns:
        Squared errors in units of each column's variance, averaged over the columns that vary; NaN where a frame's
        state is not known. None where no probe can be fitted.
    """
    rows = _Rows.of(states, episodes, names)
    if rows is None or states is None:
        return None
    spread = rows.targets.var(0, correction=0)
    varies = spread > STILL
    truth = rows.columns(states[:, frames].flatten(0, 1).double().cpu()).unflatten(0, (len(states), -1))
    found = [torch.full(truth.shape[:2], torch.nan, dtype=torch.float64) for _ in range(2)]
    for out, ridge in rows.ridges(rows.features(features)):
        clips = torch.isin(rows.clip, rows.episode[out].unique())
        for errors, each in zip(found, (features, changed), strict=True):
            given = each[clips][:, frames].double().cpu()
            predicted = ridge(given.flatten(0, 1)).unflatten(0, given.shape[:2])
            errors[clips] = ((predicted - truth[clips]).square() / spread)[..., varies].mean(dim=-1)
    return found[0], found[1]


class _Rows(NamedTuple):
    """The frames after the warm-up whose whole state is known, and what probes predict of them."""

    clip: Int64[Tensor, " B"]
    """The number of the episode of each clip, from 0."""
    known: Bool[Tensor, " BT"]
    """Which of all frames after the warm-up they are."""
    episode: Int64[Tensor, " N"]
    columns: StateColumns
    targets: Float[Tensor, "N C"]

    @classmethod
    def of(
        cls, states: Float[Tensor, "B T S"] | None, episodes: Int64[np.ndarray, " B"], names: Mapping[str, int]
    ) -> _Rows | None:
        """None where there are no states, or fewer than two episodes with known ones."""
        if states is None:
            return None
        flat = states[:, WARM_UP:].flatten(0, 1).double().cpu()
        known = flat.isfinite().all(dim=-1)
        clip = torch.from_numpy(np.unique(episodes, return_inverse=True)[1])
        episode = clip[:, None].expand(states.shape[:2])[:, WARM_UP:].flatten()[known]
        if len(episode.unique()) < 2:
            return None
        columns = StateColumns(is_angle(flat[known], names))
        return cls(clip, known, episode, columns, columns(flat[known]))

    def features(self, features: Float[Tensor, "B T F"]) -> Float[Tensor, "N F"]:
        """The features of these frames."""
        return features[:, WARM_UP:].flatten(0, 1).double().cpu()[self.known]

    def ridges(self, features: Float[Tensor, "N F"]) -> Iterator[tuple[Bool[Tensor, " N"], Ridge]]:
        """The rows of each group of episodes, and a ridge that was fitted to all others."""
        group = self.episode.unique(return_inverse=True)[1] % FOLDS
        for number in group.unique().tolist():
            out = group == number
            yield out, fit_ridge(features[~out], self.targets[~out], self.episode[~out])
