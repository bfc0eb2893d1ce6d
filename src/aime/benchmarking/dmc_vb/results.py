"""What a benchmark came to: one typed row a level, with 95 % intervals, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aime.benchmarking.dmc_vb.levels import LevelData
from aime.benchmarking.dmc_vb.measurements import Finished
from aime.benchmarking.dmc_vb.plan import Plan
from aime.data.state_names import entries_by_name
from aime.inference.probe import ProbeScores, r_squared_intervals
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.intervals import Interval, known_mean, mean_interval


@dataclass(frozen=True)
class LevelScores:
    """What came of training on one level.

    Attributes:
        level: none, static or dynamic.
        data: where it is.
        episodes: that were learned from.
        held_out: episodes of the test part, which probe and clone are judged on.
        steps: of a training, the mean over seeds.
        minutes: of a training, the mean over seeds.
        state: R² of the probe, the mean over the state's entries; None where the data has no states.
        fields: the same by field of the state, where the data names its fields.
        clone_error: mean distance of the test part's actions from the clone's likeliest, the mean over seeds; the step
            of cloning that is kept was chosen on other episodes.
        returns: of the clones, by the distractor that they play under, in the environment's units.
        data_return: of the level's episodes; None where there are no rewards.
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
    """What one training came to, without intervals.

    Attributes:
        run: its directory.
        level: that it learned from.
        seed: of training and cloning.
        steps: of the optimizer.
        minutes: wall time of training.
        state: R² of the probe, the mean over entries; NaN without states.
        entries: R² by the number of the state's entry; an angle has that of its cosine and its sine; NaN where an entry
            stands still.
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
    """All that was compared.

    Attributes:
        source: the directory of the levels' data.
        preset: of the world models.
        seeds: trainings on each level.
        environment: where the clones played; None where they did not.
        absence: why they did not.
        episodes: that each clone played under each distractor.
        episode_steps: frames of such an episode.
        levels: a row each.
        runs: what they are made of.
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
        """JSON with every field by its name; what is not known is null."""
        return json.dumps(nan_as_null(to_plain(self)), indent=1, allow_nan=False) + "\n"


def compare(plan: Plan, finished: Sequence[Finished]) -> Benchmark:
    """Put all trainings of a plan together."""
    stage = plan.stage
    levels = [_level(each, [run for run in finished if run.training.level == each.level]) for each in plan.levels]
    return Benchmark(
        source=str(plan.protocol.source),
        preset=plan.training.preset,
        seeds=plan.protocol.seeds,
        environment=stage.environment,
        absence=stage.absence,
        episodes=plan.protocol.episodes if stage.environment else 0,
        episode_steps=stage.steps,
        levels=tuple(levels),
        runs=tuple(_run(each) for each in finished),
    )


def _level(data: LevelData, runs: Sequence[Finished]) -> LevelScores:
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
    """All columns, then those of each field."""
    columns = range(len(scores.entries))
    fields = entries_by_name(names).values()
    return [list(columns), *([column for column in columns if scores.entries[column] in own] for own in fields)]


def _run(finished: Finished) -> RunScores:
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
