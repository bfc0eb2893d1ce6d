"""Learning online: collect episodes with the agent, train the world model on all data, train an agent on it, repeat.

OUT/data/start-*.h5          links to the data of the first run; what it held out stays held out, by content
OUT/data/round-000.h5, ...   the episodes that each round collected
OUT/rounds/000/, ...         runs: the world model after each round, with its agent in agents/imagine
OUT/returns.jsonl            the returns of the collected episodes, one JSON object a round
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from aime.agents.actor_critic import ActorCriticConfig
from aime.agents.agent import Agent, PolicyDecider
from aime.agents.experience import OnProgress
from aime.agents.playing import Player, Scripted, play
from aime.agents.runs import train_imagination
from aime.agents.saved import agent_directory, load_agent
from aime.data import Dataset, open_dataset
from aime.data.shards import write_shard
from aime.errors import AimeError, expect_positive
from aime.inference.loading import load_run
from aime.inference.own_data import held_out_by, open_own
from aime.io.collect.recording import Recorded, Recording, recording_of
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.intervals import mean_interval
from aime.primitives.locks import LOCK, only_writer
from aime.primitives.signals import Interrupted
from aime.training.run_directory import is_complete, read_config
from aime.training.trainer import train
from aime.world_model.saved import CONFIG, read_run

AGENT = "imagine"
FIRST_SEED = 1_000_000
"""Seeds of collected episodes start here, a thousand for each round: far from those of `aime agent evaluate`."""


@dataclass(frozen=True)
class OnlineConfig:
    """How a run continues online."""

    rounds: int = 10
    """Rounds of collecting and training."""
    episodes: int = 8
    """Episodes to collect per round."""
    steps: int | None = None
    """Frames per episode. By default those of 1000 simulator steps."""
    minutes: float = 5.0
    """Training time of the world model per round."""
    keep_data: bool = True
    """Also train on the run's data."""
    learning: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    beside: ClassVar[bool] = False  # a flag of earlier versions

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        expect_positive(self, "rounds", "episodes", "minutes")


def learn_online(
    run: str | Path,
    environment: str,
    out: Path,
    config: OnlineConfig,
    seed: int,
    on_progress: OnProgress,
    data: str | None = None,
) -> tuple[Path, list[float]]:
    """Continue a run in a real environment; called again, continue after the last complete round.

    The run's agent `imagine` collects first, or random actions where there is none. `out` is a directory of its own;
    `data` is the run's data, if it has moved.

    Returns:
        The last round's run, and the mean return that each round collected.

    Raises:
        AimeError: if run and environment do not fit together, or `out` holds something else.
    """
    info = read_run(run)
    dataset = open_own(info, data)
    recording = recording_of(environment, dataset.attributes, info.model.image_size)
    if out.exists() and not (out / "data").is_dir() and any(path.name != LOCK for path in out.iterdir()):
        raise AimeError(f"{out}: exists and is no online run; expected a new directory: take another --out")
    with only_writer(out):
        (out / "data").mkdir(exist_ok=True)
        if config.keep_data:
            _link_data(dataset.part("train", held_out_by(info, dataset)), out / "data")
        latest, means = Path(run), []
        for number in range(config.rounds):
            shard = out / "data" / f"round-{number:03d}.h5"
            if not shard.exists():
                _collect(str(latest), recording, config, FIRST_SEED * (seed + 1) + 1000 * number, shard)
            means.append(_note(out, number, shard))
            on_progress("rounds", number, config.rounds, {"mean_return": means[-1]})
            latest = _train(latest, out / "rounds" / f"{number:03d}", out / "data", config, seed + number, on_progress)
    on_progress("rounds", config.rounds, config.rounds, {"mean_return": means[-1]})
    return latest, means


def _collect(run: str, recording: Recording, config: OnlineConfig, seed: int, shard: Path) -> None:
    """Play some episodes with samples of an agent's policy, or at random if the run has none, and write one shard."""
    torch.manual_seed(seed)
    worlds = [Recorded(recording) for _ in range(config.episodes)]
    player: Player = Scripted(worlds, random=True)
    if agent_directory(run, AGENT).is_dir():
        _, model = load_run(run)
        player = Agent(model, PolicyDecider(load_agent(run, AGENT, model.dynamics).policy, sample=True))
    steps = config.steps or recording.suite_steps
    play(player, worlds, range(seed, seed + config.episodes), steps)
    notes = {**recording.attributes(), **worlds[0].notes(), "policy": AGENT, "seed": seed}
    write_shard(shard, [world.episode for world in worlds], notes)


def _train(latest: Path, place: Path, data: Path, config: OnlineConfig, seed: int, on_progress: OnProgress) -> Path:
    """The next world model, from the one before, and its agent; what is there already is left as it is.

    The agent is trained from scratch: a policy reads the latents of one world model, and these have changed.
    """
    if not agent_directory(place, AGENT).is_dir():
        following = replace(
            read_config(latest),
            data=str(data),
            out=place,
            init_from=latest,
            resume=(place / CONFIG).is_file(),
            steps=None,
            minutes=config.minutes,
            seed=seed,
        )
        if not is_complete(following) and (number := train(following).signal) is not None:
            raise Interrupted(number)
        train_imagination(place, None, config.learning, seed, on_progress)
    return place


def _link_data(dataset: Dataset, place: Path) -> None:
    several = len(dataset.contributions) > 1
    for number, file in enumerate(dataset.files):
        # shards of several sources may have the same name
        link = place / (f"start-{number:04d}-{file.name}" if several else f"start-{file.name}")
        if not link.exists():  # the data may have moved since a first round
            link.unlink(missing_ok=True)
            os.symlink(file.resolve(), link)


def _note(out: Path, number: int, shard: Path) -> float:
    """Write the returns of a round's episodes; their mean."""
    returns = [float(np.nansum(episode.reward)) for episode in open_dataset(shard)]
    mean = mean_interval(np.array(returns))
    lines = (out / "returns.jsonl").read_text(encoding="utf-8").splitlines() if number else []
    line = {"round": number, **vars(mean), "returns": returns}
    lines = [*lines[:number], json.dumps(nan_as_null(to_plain(line)))]
    write_atomically(out / "returns.jsonl", ("\n".join(lines) + "\n").encode())
    return mean.mean
