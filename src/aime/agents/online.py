"""Learning online: collect with the agent as it is, teach the world model, let the agent learn in it, and again.

OUT/data/start-*.h5          links to what the run was trained on, if it is kept; of what lies in these files, that
                             which it held out stays held out, by content
OUT/data/round-000.h5, ...   what each round collected
OUT/rounds/000/, ...         runs: the world model after each round, with its agent in agents/imagine
OUT/returns.jsonl            the returns of the episodes collected, one JSON object a round
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from aime.agents.actor_critic import ActorCriticConfig
from aime.agents.agent import Agent, PolicyDecider
from aime.agents.evaluate import Scripted, recording_like
from aime.agents.experience import OnProgress
from aime.agents.playing import Acting, play
from aime.agents.runs import train_imagination
from aime.agents.saved import agent_directory, load_agent
from aime.data import Dataset, open_dataset
from aime.data.shards import write_shard
from aime.errors import AimeError, expect_positive
from aime.inference.loading import load_run
from aime.inference.own_data import held_out_by, own_data
from aime.io.collect.environment import SUITE_STEPS, Arrival
from aime.io.collect.recording import Distracted, Recording, episode_of
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.intervals import mean_interval
from aime.primitives.locks import LOCK, only_writer
from aime.primitives.signals import Interrupted
from aime.training.run_directory import is_complete, read_config
from aime.training.trainer import train
from aime.world_model.saved import CONFIG, read_run

AGENT = "imagine"

EPISODES = 1_000_000
"""Seeds of a run's collected episodes begin here, a thousand for each round: far from those that it is judged on."""


@dataclass(frozen=True)
class OnlineConfig:
    """How a run goes on online.

    Raises:
        AimeError: if a number is out of its range.
    """

    rounds: int = 10
    episodes: int = 8
    """Collected in each round."""
    steps: int | None = None
    """Frames of an episode; those of 1000 simulated steps if None."""
    minutes: float = 5.0
    """That the world model is trained for in each round."""
    keep_data: bool = True
    """Go on training on the run's own data too."""
    beside: bool = False
    """Collect in a process of its own while the world model trains, with the agent of the round before."""
    learning: ActorCriticConfig = field(default_factory=ActorCriticConfig)

    def __post_init__(self) -> None:
        expect_positive(self, "rounds", "episodes", "minutes")


def learn_online(
    run: str | Path,
    environment: str,
    out: Path,
    config: OnlineConfig,
    seed: int,
    told: OnProgress,
    data: str | None = None,
) -> tuple[Path, list[float]]:
    """Go on with a run in a real environment; called again, it goes on after the last whole round.

    Args:
        run: the run to start from; its agent `imagine`, where it has one, collects first, else chance does.
        environment: dmc:DOMAIN_TASK.
        out: a directory of its own.
        config: how.
        seed: of all randomness.
        told: see `OnProgress`.
        data: the run's data, if it has moved; by default it is looked for where it was.

    Returns:
        The last round's run, and the mean return that each round collected.

    Raises:
        AimeError: if run and environment do not fit together, or `out` holds something else.
    """
    info = read_run(run)
    data = own_data(info) if data is None else data
    recording = recording_like(environment, info, data=data)
    steps = config.steps or SUITE_STEPS // recording.action_repeat
    if out.exists() and not (out / "data").is_dir() and any(path.name != LOCK for path in out.iterdir()):
        raise AimeError(f"{out}: exists and is no online run; expected a new directory: take another --out")
    with only_writer(out):
        return _rounds(run, data, recording, steps, out, config, seed, told)


def _rounds(
    run: str | Path,
    data: str,
    recording: Recording,
    steps: int,
    out: Path,
    config: OnlineConfig,
    seed: int,
    told: OnProgress,
) -> tuple[Path, list[float]]:
    (out / "data").mkdir(exist_ok=True)
    if config.keep_data:
        info = read_run(run)
        dataset = open_dataset(data)
        _link_data(dataset.part("train", held_out_by(info, dataset)), out / "data")
    latest, means = Path(run), []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as beside:
        collecting: Future[list[float]] | None = None
        for number in range(config.rounds):
            place, shard = out / "rounds" / f"{number:03d}", out / "data" / f"round-{number:03d}.h5"
            work = (str(latest), recording, config.episodes, steps, _first_seed(seed, number), shard)
            returns = _returns_of(shard) if shard.exists() else collecting.result() if collecting else collect(*work)
            means.append(_note(out, number, returns))
            told("rounds", number, config.rounds, {"mean_return": means[-1]})
            following = out / "data" / f"round-{number + 1:03d}.h5"
            if config.beside and number + 1 < config.rounds and not following.exists():
                ahead = (str(latest), recording, config.episodes, steps, _first_seed(seed, number + 1), following)
                collecting = beside.submit(collect, *ahead)
            latest = _one_round(latest, place, out / "data", config, seed + number, told)
    told("rounds", config.rounds, config.rounds, {"mean_return": means[-1]})
    return latest, means


def collect(run: str, recording: Recording, episodes: int, steps: int, seed: int, shard: Path) -> list[float]:
    """Play some episodes with a run's agent as it explores, and write them as one shard; their returns.

    Raises:
        AimeError: if the environment cannot be built, or the shard cannot be written.
    """
    torch.manual_seed(seed)
    worlds = [Distracted(recording) for _ in range(episodes)]
    acting: Acting = Scripted(worlds, random=True)
    if agent_directory(run, AGENT).is_dir():
        _, model = load_run(run)
        acting = Agent(model, PolicyDecider(load_agent(run, AGENT, model.dynamics)[1].policy, sample=True))
    seen: list[list[Arrival]] = [[] for _ in worlds]
    done: list[list[np.ndarray]] = [[] for _ in worlds]

    def keep(step: int, arrivals: list[Arrival], actions: np.ndarray) -> None:
        for place, arrival in enumerate(arrivals):
            if not (seen[place] and seen[place][-1].terminated):
                seen[place].append(arrival)
                done[place].append(actions[place])

    played = play(acting, worlds, range(seed, seed + episodes), steps, keep)
    for place, arrival in enumerate(played.last):
        if seen[place][-1] is not arrival:
            seen[place].append(arrival)
    whole = [episode_of(arrivals, actions[: len(arrivals) - 1]) for arrivals, actions in zip(seen, done, strict=True)]
    write_shard(shard, whole, {**recording.attributes(), **worlds[0].notes(), "policy": AGENT, "seed": seed})
    return played.returns.tolist()


def _one_round(latest: Path, place: Path, data: Path, config: OnlineConfig, seed: int, told: OnProgress) -> Path:
    """The next world model, from the one before, and its agent; what is there already is left as it is.

    The agent begins again, from a record that has grown: the latents that the agent of the round before had learned to
    read are not those of this world model, and the longer dreams alone teach a policy, the less it is worth outside.
    """
    if not agent_directory(place, AGENT).is_dir():
        begun = replace(
            read_config(latest),
            data=str(data),
            out=place,
            init_from=latest,
            resume=(place / CONFIG).is_file(),
            steps=None,
            minutes=config.minutes,
            seed=seed,
        )
        if not is_complete(begun) and (number := train(begun).signal) is not None:
            raise Interrupted(number)
        train_imagination(place, None, config.learning, seed, told)
    return place


def _first_seed(seed: int, number: int) -> int:
    """Of the episodes of a round."""
    return EPISODES * (seed + 1) + 1000 * number


def _link_data(dataset: Dataset, place: Path) -> None:
    several = len(dataset.contributions) > 1
    for number, file in enumerate(dataset.files):
        # shards of several sources may have the same name
        link = place / (f"start-{number:04d}-{file.name}" if several else f"start-{file.name}")
        if not link.exists():  # the data may have moved since a first round
            link.unlink(missing_ok=True)
            os.symlink(file.resolve(), link)


def _returns_of(shard: Path) -> list[float]:
    return [float(np.nansum(episode.reward)) for episode in open_dataset(shard)]


def _note(out: Path, number: int, returns: list[float]) -> float:
    mean = mean_interval(np.array(returns))
    lines = (out / "returns.jsonl").read_text(encoding="utf-8").splitlines() if number else []
    line = {"round": number, "mean": mean.mean, "low": mean.low, "high": mean.high, "returns": returns}
    lines = [*lines[:number], json.dumps(nan_as_null(to_plain(line)))]
    write_atomically(out / "returns.jsonl", ("\n".join(lines) + "\n").encode())
    return mean.mean
