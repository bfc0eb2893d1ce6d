"""A linear probe: a ridge regression of the recorded state from (h, z), scored on episodes left out of the fit.

The penalty of each entry is chosen by cross-validation over episodes. A periodic angle is predicted as its cosine and
sine, because 359 degrees are close to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from aime.data import Clips, Dataset, load_clips
from aime.data.state_names import entries_by_name
from aime.errors import AimeError
from aime.primitives.intervals import Interval, bounds_of, known_mean, over_seeds
from aime.world_model.model import AIME

PENALTIES = tuple(10.0**power for power in range(-4, 3))
"""Of the ridge, per frame, on standardised features: the strongest predicts little more than the mean."""

FOLDS = 5
"""Groups of episodes that are left out in turn, to find each column's penalty."""

WARM_UP = 5
"""Frames at the start of an episode that do not count: the belief has seen too few frames."""

FRAMES_AT_ONCE = 256
"""Frames that are filtered in one pass; in a longer episode the belief is reset after each."""

STILL = 1e-8
"""A variance at or below which an entry of the state is constant, so that its R² is not defined."""

RATES = ("vel", "gyro", "accel")
"""A field whose name contains one of these is a rate of change, not a position."""


class Ridge(NamedTuple):
    """A linear map from F features to C targets."""

    centre: Float[Tensor, " F"]
    scale: Float[Tensor, " F"]
    weights: Float[Tensor, "F C"]
    """Of standardised features."""
    offset: Float[Tensor, " C"]

    def __call__(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N C"]:
        """The targets predicted from N rows of features."""
        return (features - self.centre) / self.scale @ self.weights + self.offset


def fit_ridge(
    features: Float[Tensor, "N F"],
    targets: Float[Tensor, "N C"],
    episode: Int[Tensor, " N"],
    penalties: Sequence[float] = PENALTIES,
) -> Ridge:
    """Minimise |X w − y|² + λ N |w|² for each column y, with the λ that predicts it best in episodes left out.

    X are the standardised features, y the centred targets. Frames of one episode resemble each other: a penalty that is
    chosen on frames, or fixed, lets a ridge of many features memorise episodes.

    Args:
        features: N of 2 or more rows, best in float64.
        targets: likewise.
        episode: which one each row is of; where there is but one, stretches of it are left out.
        penalties: to choose λ from, each above 0; one alone is taken as it is.

    Reference: Hoerl & Kennard 1970, "Ridge regression"; Stone 1974, "Cross-validatory choice and assessment of
    statistical predictions".
    """
    centre, scale = features.mean(0), features.std(0).clamp_min(1e-8)
    offset = targets.mean(0)
    inputs, truth = (features - centre) / scale, targets - offset
    gram, cross = inputs.T @ inputs, inputs.T @ truth
    choice = inputs.new_tensor(penalties)

    error = inputs.new_zeros(len(choice), truth.shape[1])
    for fold in _folds(episode):
        x, y = inputs[fold], truth[fold]
        others = _Spectrum.of(gram - x.T @ x, cross - x.T @ y, len(inputs) - len(x))
        for number, penalty in enumerate(choice):
            error[number] += (x @ others.weights(penalty) - y).square().sum(0)
    weights = _Spectrum.of(gram, cross, len(inputs)).weights(choice[error.argmin(0)])
    return Ridge(centre, scale, weights, offset)


class _Spectrum(NamedTuple):
    """XᵀX by its eigenvectors, so that the weights of every penalty cost one product."""

    values: Float[Tensor, " F"]
    vectors: Float[Tensor, "F F"]
    cross: Float[Tensor, "F C"]
    """XᵀY, on the eigenvectors."""
    rows: int

    @classmethod
    def of(cls, gram: Float[Tensor, "F F"], cross: Float[Tensor, "F C"], rows: int) -> _Spectrum:
        values, vectors = torch.linalg.eigh(gram)
        return cls(values.clamp_min(0.0), vectors, vectors.T @ cross, rows)

    def weights(self, penalty: Float[Tensor, "*C"]) -> Float[Tensor, "F C"]:
        """One penalty for all columns, or one for each."""
        return self.vectors @ (self.cross / (self.values[:, None] + self.rows * penalty))


def _folds(episode: Int[Tensor, " N"]) -> Iterator[Bool[Tensor, " N"]]:
    """The rows of each fold: whole episodes, or stretches if there is only one episode."""
    _, number = episode.unique(return_inverse=True)
    if not number.any():
        number = torch.arange(len(number)) * FOLDS // len(number)
    for fold in range(min(FOLDS, int(number.max()) + 1)):
        yield number % FOLDS == fold


def r_squared(predicted: Float[Tensor, "N C"], truth: Float[Tensor, "N C"]) -> Float[Tensor, " C"]:
    """1 − Σ(ŷ − y)² / Σ(y − ȳ)² of each column; NaN where the truth is constant."""
    spread = truth.var(0, correction=0)
    return torch.where(spread > STILL, 1 - (predicted - truth).square().mean(0) / spread, torch.nan)


def is_angle(states: Float[Tensor, "N S"], names: Mapping[str, int]) -> Bool[Tensor, " S"]:
    """Which entries are periodic angles: those that range over more than 6 and stay within a turn and three quarters.

    A velocity may do both and is no angle: at π and at -π a body does not move alike.

    Args:
        states: in their own units.
        names: the fields of a state and their widths, in order, empty where they are not known
            (`Dataset.state_names`); a field named as a rate (`RATES`) is no angle.
    """
    wide = states.max(0).values - states.min(0).values > 6.0
    found = wide & (states.abs().max(0).values < 3.5 * torch.pi)
    found[list(rate_entries(names))] = False
    return found


def rate_entries(names: Mapping[str, int]) -> set[int]:
    """The entries of a state whose field is named as a rate of change (`RATES`)."""
    rates = (name for name in names if any(rate in name.lower() for rate in RATES))
    fields = entries_by_name(names)
    return {entry for name in rates for entry in fields[name]}


class StateColumns(NamedTuple):
    """The columns that a probe predicts: entries as they are, then the cosines of angles, then their sines."""

    angle: Bool[Tensor, " S"]
    """From `is_angle`."""

    def __call__(self, states: Float[Tensor, "N S"]) -> Float[Tensor, "N C"]:
        """The columns of some states."""
        angles = states[:, self.angle]
        return torch.cat([states[:, ~self.angle], angles.cos(), angles.sin()], 1)

    @property
    def entries(self) -> tuple[int, ...]:
        """The entry of the state that each column stands for."""
        numbers = torch.arange(len(self.angle))
        return tuple(torch.cat([numbers[~self.angle], numbers[self.angle], numbers[self.angle]]).tolist())


class ProbeFrames(NamedTuple):
    """The features and the recorded states of N frames."""

    features: Float[Tensor, "N F"]
    """(h_{t-1}, z_t), float64."""
    states: Float[Tensor, "N S"]
    """Float64."""
    episode: Int[Tensor, " N"]
    """The number of the episode within the data set, from 0."""


@dataclass(frozen=True)
class ProbeScores:
    """The errors of a probe on E unseen episodes, as sums from which the R² of any selection of episodes follows.

    Attributes:
        entries: of each of the C columns, which entry of the state it predicts; an angle has two columns.
        frames: of each episode, those that count.
        total: `[E][C]`, sums over an episode of the truth less the mean of what the probe was fitted to.
        square: `[E][C]`, sums of the squares of the same.
        error: `[E][C]`, sums of the squares of the predictions' errors.
    """

    entries: tuple[int, ...]
    frames: tuple[int, ...]
    total: tuple[tuple[float, ...], ...]
    square: tuple[tuple[float, ...], ...]
    error: tuple[tuple[float, ...], ...]

    def r_squared(self, counts: Float64[np.ndarray, "R E"] | None = None) -> Float64[np.ndarray, "R C"]:
        """R² of each column, NaN where the truth is constant.

        Args:
            counts: how often each episode is counted, for each of R selections; by default, one that has each once.
        """
        frames = np.array(self.frames, np.float64)
        counts = np.ones((1, len(frames))) if counts is None else counts
        total, square, error = (counts @ np.array(each) for each in (self.total, self.square, self.error))
        number = (counts @ frames)[:, None]
        spread = square - total**2 / number
        known = spread > STILL * number
        return np.where(known, 1 - error / np.where(known, spread, 1.0), np.nan)


def r_squared_intervals(scores: Sequence[ProbeScores], groups: Sequence[Sequence[int]]) -> list[Interval]:
    """R² of groups of columns, the mean over the columns that vary and over seeds, with 95 % intervals over episodes.

    Args:
        scores: of each seed, on the same episodes.
        groups: numbers of columns; one or more groups.
    """

    def figures(seed: int, counts: Float64[np.ndarray, "R E"] | None) -> Float64[np.ndarray, "R M"]:
        found = scores[seed].r_squared(counts)
        return np.stack([known_mean(found[:, list(group)]) for group in groups], axis=1)

    episodes = len(scores[0].frames)
    drawn = over_seeds(figures, len(scores), episodes)
    points = np.mean([figures(seed, None)[0] for seed in range(len(scores))], axis=0)
    units = max(episodes, len(scores))
    return [
        Interval.around(float(point), bounds_of(float(point), drawn[:, number], units))
        for number, point in enumerate(points)
    ]


def probe(
    model: AIME,
    seen: Dataset,
    unseen: Dataset,
    frames: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeScores:
    """Fit a probe of the state on some episodes, and score it on others.

    Args:
        model: in eval mode; frames and actions of the episodes fit it.
        seen: what the probe is fitted to; has states.
        unseen: what it is scored on; has states.
        frames: at most about so many of each, of whole episodes at equal distances.
        progress: is called with (frames done, frames in all), now and then.

    Raises:
        AimeError: if there are no states, or no episode has more than `WARM_UP` frames.
    """
    for dataset in (seen, unseen):
        if not dataset.has_state:
            raise AimeError(f"{dataset.name}: has no state; expected the simulator's: record or import it with states")
    chosen = [dataset.spread_episodes(frames) for dataset in (seen, unseen)]
    whole, before = sum(dataset.frames for dataset in chosen), chosen[0].frames
    fitted = collect_features(model, chosen[0], lambda done: progress(done, whole))
    judged = collect_features(model, chosen[1], lambda done: progress(before + done, whole))
    columns = StateColumns(is_angle(fitted.states, seen.state_names))
    targets = columns(fitted.states)
    predicted = fit_ridge(fitted.features, targets, fitted.episode)(judged.features)
    return score_probe(columns.entries, predicted, columns(judged.states), targets.mean(0), judged.episode)


def score_probe(
    entries: tuple[int, ...],
    predicted: Float[Tensor, "N C"],
    truth: Float[Tensor, "N C"],
    origin: Float[Tensor, " C"],
    episode: Int[Tensor, " N"],
) -> ProbeScores:
    """Sums of errors and of the truth by episode.

    Args:
        entries: of each column, the entry of the state that it predicts.
        predicted: by the probe.
        truth: the recorded state.
        origin: the mean of what it was fitted to.
        episode: that each row is of.
    """
    own = [episode == number for number in episode.unique().tolist()]
    # relative to the origin, so that the spread is no difference of large numbers
    off = truth - origin

    def sums(values: Float[Tensor, "N C"]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(values[rows].sum(0).tolist()) for rows in own)

    frames = tuple(int(rows.sum()) for rows in own)
    return ProbeScores(entries, frames, sums(off), sums(off.square()), sums((predicted - truth).square()))


@torch.no_grad()
def collect_features(model: AIME, dataset: Dataset, progress: Callable[[int], None] = lambda done: None) -> ProbeFrames:
    """Filter whole episodes from their first frame on, and pair (h, z) with the recorded state.

    Args:
        model: in eval mode.
        dataset: has states; frames and actions fit the model.
        progress: is called with the number of frames done, after every episode.

    Raises:
        AimeError: if no episode has more than `WARM_UP` frames with known states, or a file is damaged.
    """
    parts, done = [], 0
    for number, clips in _whole_episodes(dataset):
        done += int(clips.valid.sum())
        parts.append(_features_of(model, clips, number))
        progress(done)
    frames = ProbeFrames(*(torch.cat(field) for field in zip(*parts, strict=True)))
    if not len(frames.episode):
        raise AimeError(
            f"{dataset.name}: the longest episode has {int(dataset.lengths.max())} frames; expected more than "
            f"{WARM_UP} with known states, where the probe begins: record longer episodes"
        )
    return frames


def _whole_episodes(dataset: Dataset) -> Iterator[tuple[int, Clips]]:
    """Each episode as one clip, or as clips that follow each other."""
    for number in range(dataset.episodes):
        length = min(FRAMES_AT_ONCE, int(dataset.lengths[number]))
        yield number, load_clips(dataset.select([number]), length)


def _features_of(model: AIME, clips: Clips, number: int) -> ProbeFrames:
    """The frames of one clip after the warm-up whose whole state is known."""
    given = (each.to(model.device) for each in (clips.frames, clips.actions, clips.action_valid))
    track = model.filter_sequence(*given).track
    assert clips.states is not None
    features = torch.cat([track.beliefs, track.latents], -1)[:, WARM_UP:].flatten(0, 1).double().cpu()
    states = clips.states[:, WARM_UP:].flatten(0, 1).double()
    known = states.isfinite().all(-1)
    return ProbeFrames(features[known], states[known], torch.full((int(known.sum()),), number))
