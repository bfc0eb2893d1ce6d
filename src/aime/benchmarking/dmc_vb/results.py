"""Results of a benchmark: one typed row per level with 95 % intervals, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aime.benchmarking.dmc_vb.levels import LevelData
from aime.benchmarking.dmc_vb.measurements import Measurements
from aime.benchmarking.dmc_vb.plan import Plan
from aime.data.state_names import entries_by_name
from aime.inference.probe import ProbeScores, r_squared_intervals
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.intervals import Interval, known_mean, mean_interval


@dataclass(frozen=True)
class LevelScores:
    """Results of one level.

    Attributes:
        level: none, static or dynamic.
        data: path of the data set.
        episodes: number of training episodes.
        held_out: number of episodes in the test part, which probe and clone are evaluated on.
        steps: optimizer steps, mean over seeds.
        minutes: wall time of training, mean over seeds.
        state: R² of the probe, mean over the numbers of the state; None without states.
        fields: the same by field of the state, if the data names its fields.
        clone_error: mean distance between actions of the test part and the clone's most likely ones, mean over seeds.
        returns: of the clones, by the distractor that they play with, in the environment's units.
        data_return: mean return of the level's episodes; None without rewards.
    """

    level: str
    data: str
    episodes: int
    held_out: int
    steps: float
    minutes: float
    state: Interval | None
    fields: dict[str, Interval]
    clone_error: float
    returns: dict[str, Interval]
    data_return: Interval | None


@dataclass(frozen=True)
class RunScores:
    """Results of one training, without intervals.

    Attributes:
        run: the run directory.
        level: of the training data.
        seed: of training and cloning.
        steps: of the optimizer.
        minutes: wall time of training.
        state: R² of the probe, mean over the numbers of the state; NaN without states.
        entries: R² by index into the state; an angle has two, of cosine and sine; NaN for constant numbers.
        clone_error: see `LevelScores`.
        clone_nats: −log π(a) of an action of the test part.
        returns: of each episode, by distractor.
    """

    run: str
    level: str
    seed: int
    steps: int
    minutes: float
    state: float
    entries: dict[str, tuple[float, ...]]
    clone_error: float
    clone_nats: float
    returns: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Benchmark:
    """The results of all levels.

    Attributes:
        source: directory of the levels.
        preset: of the world models.
        seeds: trainings per level.
        environment: where the clones played; None if they did not.
        absence: why they did not, or empty.
        episodes: per clone and distractor.
        episode_steps: frames per episode.
        levels: a row per level.
        runs: a row per training.
    """

    source: str
    preset: str
    seeds: int
    environment: str | None
    absence: str
    episodes: int
    episode_steps: int
    levels: tuple[LevelScores, ...]
    runs: tuple[RunScores, ...]

    def to_json(self) -> str:
        """JSON with every field by its name; unknown values are null."""
        return json.dumps(nan_as_null(to_plain(self)), indent=1, allow_nan=False) + "\n"


def compare(plan: Plan, finished: Sequence[Measurements]) -> Benchmark:
    """The results of all trainings of a plan."""
    clone_play = plan.clone_play
    levels = [_level(each, [run for run in finished if run.training.level == each.level]) for each in plan.levels]
    return Benchmark(
        source=str(plan.protocol.source),
        preset=plan.training.preset,
        seeds=plan.protocol.seeds,
        environment=clone_play.environment,
        absence=clone_play.absence,
        episodes=plan.protocol.episodes if clone_play.environment else 0,
        episode_steps=clone_play.steps,
        levels=tuple(levels),
        runs=tuple(_run(each) for each in finished),
    )


def _level(data: LevelData, runs: Sequence[Measurements]) -> LevelScores:
    names = data.dataset.state_names
    scores = [run.probe for run in runs if run.probe is not None]
    state, *fields = r_squared_intervals(scores, _groups(scores[0], names)) if scores else (None,)
    returns = {
        distractor: mean_interval(np.array([run.returns[distractor] for run in runs])) for distractor in runs[0].returns
    }
    return LevelScores(
        level=data.level,
        data=data.path,
        episodes=data.train,
        held_out=data.test,
        steps=float(np.mean([run.progress.step for run in runs])),
        minutes=float(np.mean([run.progress.seconds / 60 for run in runs])),
        state=state,
        fields=dict(zip(names, fields, strict=True)) if scores else {},
        clone_error=float(np.mean([run.clone.error for run in runs])),
        returns=returns,
        data_return=mean_interval(data.returns) if data.returns.any() else None,
    )


def _groups(scores: ProbeScores, names: Mapping[str, int]) -> list[list[int]]:
    """The indices of all columns, then those of each field."""
    columns = range(len(scores.entries))
    fields = entries_by_name(names).values()
    return [list(columns), *([column for column in columns if scores.entries[column] in own] for own in fields)]


def _run(finished: Measurements) -> RunScores:
    entries: dict[str, tuple[float, ...]] = {}
    mean = float("nan")
    if finished.probe is not None:
        found = finished.probe.r_squared()
        mean = float(known_mean(found)[0])
        for entry, value in zip(finished.probe.entries, found[0].tolist(), strict=True):
            entries[str(entry)] = (*entries.get(str(entry), ()), value)
    return RunScores(
        run=str(finished.training.config.out),
        level=finished.training.level,
        seed=finished.training.config.seed,
        steps=finished.progress.step,
        minutes=finished.progress.seconds / 60,
        state=mean,
        entries=entries,
        clone_error=finished.clone.error,
        clone_nats=finished.clone.nats,
        returns=finished.returns,
    )
