"""The plan of a benchmark, checked and printed before the first training."""

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
from aime.io.collect.environment import rendering_problem
from aime.io.collect.recording import Distracted, recording_of
from aime.training.config import TrainConfig
from aime.training.run_directory import is_complete

PLAYED_FROM = 10_000
"""Seed of the first evaluation episode."""

PATIENCE = 300.0
"""Timeout in seconds of the rendering test; long, because a failure leaves out the evaluation."""

TRIAL_STEPS = 5
"""Frames that are rendered to estimate the duration."""


@dataclass(frozen=True)
class ProtocolConfig:
    """Settings of the protocol, except those of the world models.

    Raises:
        AimeError: if a number is out of its range.
    """

    source: Path
    """A directory with a data set for each level."""
    levels: tuple[DistractorKind, ...] = LEVELS
    """Levels to train on."""
    seeds: int = 1
    """Trainings per level, with consecutive seeds."""
    environment: str | None = None
    """Environment of the clones, such as dmc:walker_walk; None for the one that the data was recorded in."""
    episodes: int = 10
    """Episodes per clone and distractor; 0 for none."""
    episode_steps: int | None = None
    """Frames per episode; None for those of 1000 simulator steps."""
    probe_frames: int = 20_000
    """Maximum number of frames to fit the probe to, and to evaluate it on."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("episodes", 0), ("episode_steps", 1), ("probe_frames", 10)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise AimeError(f"--{name.replace('_', '-')} is {value}; expected {least} or more")


class ClonePlay(NamedTuple):
    """The environment that clones are evaluated in."""

    environment: str | None
    """Such as dmc:cartpole_swingup; None if there is none."""
    absence: str
    """Why there is none; otherwise empty."""
    steps: int
    """Frames per episode."""
    seconds_per_frame: float
    """Measured time to simulate and render a frame with a moving distractor."""


class Training(NamedTuple):
    """One training on one level."""

    level: DistractorKind
    config: TrainConfig

    @property
    def title(self) -> str:
        """Level and seed, for progress lines."""
        return f"{self.level}, seed {self.config.seed}"


@dataclass(frozen=True)
class Plan:
    """A checked benchmark.

    Attributes:
        protocol: its settings.
        training: config of the world models; `data`, `out` and `seed` differ.
        levels: the data.
        clone_play: where clones are evaluated.
    """

    protocol: ProtocolConfig
    training: TrainConfig
    levels: tuple[LevelData, ...]
    clone_play: ClonePlay

    def trainings(self) -> Iterator[Training]:
        """All trainings in order: all levels with the first seed, then with the next."""
        base = plain_config(self.training)
        for seed in range(base.seed, base.seed + self.protocol.seeds):
            for each in self.levels:
                out = base.out / each.level / f"seed-{seed}"
                yield Training(each.level, replace(base, data=each.path, out=out, seed=seed, resume=False))

    def describe(self) -> str:
        """The steps and their expected duration, in lines."""
        first, count = self.levels[0].dataset, len(self.levels) * self.protocol.seeds
        done = sum(is_complete(training.config) for training in self.trainings())
        follows = [f"a clone of {self.protocol.imitation.steps} steps"]
        if first.has_state:
            follows.insert(0, f"a probe of (h, z) for the {first.state_width} numbers of the state")
        lines = [
            f"DMC-VB protocol on {self.protocol.source}, into {self.training.out}",
            *(f"  {_data_line(each)}" for each in self.levels),
            f"  training: {count} of {self.training.preset}, {self._budget(count)}"
            + (f"; {done} already complete" if done else ""),
            f"  for each: {', '.join(follows)}",
            f"  evaluation of clones: {self._playing(count)}",
        ]
        return "\n".join(lines)

    def _budget(self, count: int) -> str:
        if self.training.minutes is None:
            return f"{self.training.steps} steps each"
        return f"{self.training.minutes:g} min each: {count * self.training.minutes:g} min"

    def _playing(self, count: int) -> str:
        environment, absence, steps, seconds = self.clone_play
        if environment is None:
            return f"left out: {absence}"
        frames = count * len(LEVELS) * self.protocol.episodes * steps
        return (
            f"{self.protocol.episodes} episodes of {steps} frames of {environment} per clone and distractor "
            f"({', '.join(LEVELS)}); {frames} frames at {1000 * seconds:.0f} ms per frame: at least "
            f"{frames * seconds / 60:.0f} min"
        )


def _data_line(each: LevelData) -> str:
    dataset = each.dataset
    return (
        f"{each.level}: {dataset.name}, {each.train} training and {each.held_out} held-out episodes "
        f"({each.test} test), {dataset.frames} frames"
    )


def make_plan(protocol: ProtocolConfig, training: TrainConfig) -> Plan:
    """Check everything that can be checked before the first training.

    Args:
        protocol: its settings.
        training: config of the world models with the data's sizes; `out` is the directory of the benchmark.

    Raises:
        AimeError: if levels are missing or differ, the environment is unknown or has other actions than the data, or an
            existing run has other settings.
    """
    levels = open_levels(protocol.source, protocol.levels, training.held_out)
    plan = Plan(protocol, training, levels, _choose_clone_play(protocol, levels))
    for each in plan.trainings():
        refuse_other_settings(each.config)
    return plan


def _choose_clone_play(protocol: ProtocolConfig, levels: Sequence[LevelData]) -> ClonePlay:
    """Where clones play; without rendering, the other steps still run."""
    if protocol.episodes == 0:
        return ClonePlay(None, "--episodes is 0", 0, 0.0)
    first = levels[0].dataset
    environment = protocol.environment or str(first.attributes.get("environment", ""))
    if not environment.startswith("dmc:"):
        found = f"is from {environment}" if environment else "does not name its environment"
        named = f"--env is {environment}" if protocol.environment else f"{first.name}: {found}"
        raise AimeError(
            f"{named}; expected dmc:DOMAIN_TASK: pass it, such as --env dmc:walker_walk, or leave out the "
            "evaluation of clones with --episodes 0"
        )
    problem = rendering_problem(PATIENCE)
    if problem is not None:
        return ClonePlay(None, problem, 0, 0.0)
    recording = recording_of(environment, first.attributes, first.image_size, "dynamic")
    world = Distracted(recording)
    if world.action_width != first.action_width:
        raise AimeError(
            f"{environment}: has actions of width {world.action_width}; expected {first.action_width} as in "
            f"{first.name}: pass the environment that the data was recorded in"
        )
    steps = protocol.episode_steps or recording.suite_steps
    return ClonePlay(environment, "", steps, _seconds_per_frame(world))


def _seconds_per_frame(world: Distracted) -> float:
    world.reset(0)
    began = time.perf_counter()
    for _ in range(TRIAL_STEPS):
        world.step(np.zeros(world.action_width, np.float32))
    return (time.perf_counter() - began) / TRIAL_STEPS
