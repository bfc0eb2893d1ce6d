"""What a benchmark will do: settled, checked and told before anything runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aime.agents.imitation import ImitationConfig
from aime.benchmarking.dmc_vb.levels import LEVELS, LevelData, open_levels
from aime.benchmarking.isolated import plain_config, refuse_other_settings
from aime.errors import AimeError
from aime.io.collect.distractors import DistractorKind
from aime.io.collect.environment import SUITE_STEPS, rendering_problem
from aime.io.collect.recording import Distracted, recording_of
from aime.training.config import TrainConfig
from aime.training.run_directory import is_complete

PLAYED_FROM = 10_000
"""The seed of the first episode that clones play; recordings have seeds of another kind."""

PATIENCE = 300.0
"""Seconds for a busy machine to render its first frame: a wrong no would leave the playing out."""

TRIAL_STEPS = 5
"""Frames that are rendered to tell how long playing will take."""


@dataclass(frozen=True)
class ProtocolConfig:
    """What is done with the data of DMC-VB's levels, beside the training of world models.

    Raises:
        AimeError: if a number is out of its range.
    """

    source: Path
    """A directory with a data set for each level."""
    levels: tuple[DistractorKind, ...] = LEVELS
    """To train on."""
    seeds: int = 1
    """Trainings on each level, with seeds that follow each other."""
    environment: str | None = None
    """Where clones play, such as dmc:walker_walk; None for the one that the data was recorded in."""
    episodes: int = 10
    """Played by each clone under each distractor; 0 for none."""
    episode_steps: int | None = None
    """Frames of an episode; None for those of 1000 simulated steps."""
    probe_frames: int = 20_000
    """The most frames that the probe is fitted to, and that it is judged on."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("episodes", 0), ("episode_steps", 1), ("probe_frames", 10)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise AimeError(f"--{name.replace('_', '-')} is {value}; expected {least} or more")


class Stage(NamedTuple):
    """Where clones play."""

    environment: str | None
    """Such as dmc:cartpole_swingup; None where none is to be had."""
    absence: str
    """Why none is; empty where there is one."""
    steps: int
    """Frames of an episode."""
    seconds_per_frame: float
    """To simulate and render one, with a moving distractor, as just measured."""


class Training(NamedTuple):
    """One training on one level, and what follows from it."""

    level: DistractorKind
    config: TrainConfig

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.level}, seed {self.config.seed}"


@dataclass(frozen=True)
class Plan:
    """A benchmark that can be run.

    Attributes:
        protocol: what is done.
        training: of each world model; `data`, `out` and `seed` differ.
        levels: the data.
        stage: where clones play.
    """

    protocol: ProtocolConfig
    training: TrainConfig
    levels: tuple[LevelData, ...]
    stage: Stage

    def trainings(self) -> Iterator[Training]:
        """All of them, in the order in which they run: every level once before any is repeated."""
        base = plain_config(self.training)
        for seed in range(base.seed, base.seed + self.protocol.seeds):
            for each in self.levels:
                out = base.out / each.level / f"seed-{seed}"
                yield Training(each.level, replace(base, data=each.path, out=out, seed=seed, resume=False))

    def describe(self) -> str:
        """What will be done and how long it will take, some lines."""
        first, count = self.levels[0].dataset, len(self.levels) * self.protocol.seeds
        done = sum(is_complete(training.config) for training in self.trainings())
        follows = [f"a clone of {self.protocol.imitation.steps} steps"]
        if first.has_state:
            follows.insert(0, f"a probe of (h, z) for the {first.state_width} numbers of the state")
        lines = [
            f"DMC-VB protocol on {self.protocol.source}, into {self.training.out}",
            *(f"  {_data_line(each)}" for each in self.levels),
            f"  training: {count} of {self.training.preset}, {self._budget(count)}"
            + (f"; {done} done before and kept" if done else ""),
            f"  then of each: {', '.join(follows)}",
            f"  playing: {self._playing(count)}",
        ]
        return "\n".join(lines)

    def _budget(self, count: int) -> str:
        if self.training.minutes is None:
            return f"{self.training.steps} steps each"
        return f"{self.training.minutes:g} min each: {count * self.training.minutes:g} min"

    def _playing(self, count: int) -> str:
        environment, absence, steps, seconds = self.stage
        if environment is None:
            return f"left out: {absence}"
        frames = count * len(LEVELS) * self.protocol.episodes * steps
        return (
            f"{self.protocol.episodes} episodes of {steps} frames of {environment} under each of {', '.join(LEVELS)} "
            f"by each clone; {frames} frames at {1000 * seconds:.0f} ms to render one: {frames * seconds / 60:.0f} min "
            "or more"
        )


def _data_line(each: LevelData) -> str:
    dataset = each.dataset
    return (
        f"{each.level}: {dataset.name}, {each.train} episodes to learn from and {each.held_out} held out "
        f"({each.test} for the test), "
        f"{dataset.frames} frames"
    )


def make_plan(protocol: ProtocolConfig, training: TrainConfig) -> Plan:
    """Check all that can be checked before the first training.

    Args:
        protocol: what is done.
        training: of each world model, sized to the data; `out` is the directory of the whole benchmark.

    Raises:
        AimeError: if levels are missing or differ, there is no such environment or its actions are others than the
            data's, or a run that is there was made with other settings.
    """
    levels = open_levels(protocol.source, protocol.levels, training.held_out)
    plan = Plan(protocol, training, levels, _choose_stage(protocol, levels))
    for each in plan.trainings():
        refuse_other_settings(each.config)
    return plan


def _choose_stage(protocol: ProtocolConfig, levels: Sequence[LevelData]) -> Stage:
    """Where to play; a machine that cannot render still trains, probes and clones."""
    if protocol.episodes == 0:
        return Stage(None, "--episodes is 0", 0, 0.0)
    first = levels[0].dataset
    environment = protocol.environment or str(first.attributes.get("environment", ""))
    if not environment.startswith("dmc:"):
        found = f"is of {environment}" if environment else "does not say which environment it is of"
        named = f"--env is {environment}" if protocol.environment else f"{first.name}: {found}"
        raise AimeError(
            f"{named}; expected dmc:DOMAIN_TASK, where distractors are: name it, such as --env dmc:walker_walk, or "
            "leave playing out by --episodes 0"
        )
    problem = rendering_problem(PATIENCE)
    if problem is not None:
        return Stage(None, problem, 0, 0.0)
    recording = recording_of(environment, first.attributes, first.image_size, "dynamic")
    world = Distracted(recording)
    if world.action_width != first.action_width:
        raise AimeError(
            f"{environment}: has actions of width {world.action_width}; expected {first.action_width} as in "
            f"{first.name}: take the environment that the data came from"
        )
    steps = protocol.episode_steps or SUITE_STEPS // recording.action_repeat
    return Stage(environment, "", steps, _seconds_per_frame(world))


def _seconds_per_frame(world: Distracted) -> float:
    world.reset(0)
    began = time.perf_counter()
    for _ in range(TRIAL_STEPS):
        world.step(np.zeros(world.action_width, np.float32))
    return (time.perf_counter() - began) / TRIAL_STEPS
