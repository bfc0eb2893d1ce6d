"""How well an agent does: returns in the real environment, with intervals, and a film."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.agents.agent import Agent, Decider, PolicyDecider
from aime.agents.filming import DreamFilm
from aime.agents.noise import EpisodeNoise
from aime.agents.planner import Planner, PlannerConfig, Proposer
from aime.agents.playing import Acting, Played, play
from aime.agents.saved import Kind, agent_directory, load_agent
from aime.data import Attribute, open_dataset
from aime.errors import AimeError
from aime.inference.animation import check_film_path, encode_film
from aime.inference.loading import load_run
from aime.inference.own_data import own_data
from aime.io.collect import Environment, Recording
from aime.io.collect.distractors import DistractorKind
from aime.io.collect.environment import SUITE_STEPS, Arrival, default_action_repeat, default_camera, split_name
from aime.io.collect.recording import Distracted
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.hardware import Device
from aime.primitives.intervals import Interval, mean_interval
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo

Behaviour = Literal["imitate", "imagine", "plan", "expert", "random"]

SCRIPTED: tuple[Behaviour, ...] = ("expert", "random")
"""What acts without a world model, to compare with."""

AT_ONCE = 10
"""Episodes in step, which bounds the memory of the renderers."""


@dataclass(frozen=True)
class AgentEvaluation:
    """What some episodes came to.

    Attributes:
        run: whose world model.
        environment: such as dmc:cartpole_swingup.
        policy: what acted.
        seed: of the first episode; each has the next one.
        steps: frames that an episode lasts at most.
        returns: of each episode, in the environment's units.
        mean: of the returns, with a 95 % interval over episodes; of one episode there is none.
        seconds_per_act: median time to see a frame of all episodes that are played at once, and to act.
        at_once: how many those are.
        distractor: what was behind them: none, static or dynamic.
        noise: standard deviation of what was added to the actions.
    """

    run: str
    environment: str
    policy: str
    seed: int
    steps: int
    returns: tuple[float, ...]
    mean: Interval
    seconds_per_act: float
    at_once: int
    distractor: str
    noise: float


class Scripted:
    """Acts by the environments' own controllers, or at random; sees nothing."""

    def __init__(self, environments: Sequence[Environment], random: bool) -> None:
        self.environments, self.random = environments, random
        self._chance = EpisodeNoise(len(environments))

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """There is nothing to remember but chance."""
        self._chance = EpisodeNoise(batch, seeds)

    def act(
        self, observation: UInt8[Tensor, "B 3 H W"], states: Float[Tensor, "B S"] | None = None
    ) -> Float[Tensor, "B A"]:
        """An action each, `[B,A]` in [-1, 1]."""
        if self.random:
            return 2 * self._chance.uniforms(self.environments[0].action_width, torch.zeros(())) - 1
        return torch.from_numpy(np.stack([each.control() for each in self.environments])).float()


def evaluate_agent(
    run: str | Path,
    environment: str,
    policy: Behaviour,
    episodes: int,
    planner: PlannerConfig | None = None,
    seed: int = 10_000,
    steps: int | None = None,
    device: Device = "auto",
    video: Path | None = None,
    out: Path | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
    distractor: DistractorKind | None = None,
    noise: float | None = None,
    data: str | Path | None = None,
) -> AgentEvaluation:
    """Play some episodes, and write what came of them.

    Args:
        run: a run directory, or bundled:NAME.
        environment: dmc:DOMAIN_TASK; recorded as the run's data was, if that is from it.
        policy: imitate or imagine, agents that the run has; plan, which uses what of them is there; expert, the task's
            scripted controller; random.
        episodes: 1 or more.
        planner: how to plan; its defaults if None.
        seed: of the first episode.
        steps: frames of an episode; 1000 simulated steps by default.
        device: where to compute.
        video: a film of the first episode, FILE.webp, .gif or .mp4; not of expert or random.
        out: a JSON file.
        told: is called with (episodes done, episodes in all), now and then.
        distractor: what sky and floor are replaced by; by default, as the run's data was recorded.
        noise: standard deviation of what is added to the actions of imitate or imagine; by default the least that
            imagine has learned under, and none for imitate.
        data: the run's data, if it has moved; by default it is looked for where it was.

    Raises:
        AimeError: if run, agent, environment and files do not fit together; before anything is played.
    """
    if episodes < 1:
        raise AimeError(f"episodes is {episodes}; expected 1 or more")
    if noise is not None and policy not in get_args(Kind):
        raise AimeError(f"noise is {noise} for {policy}; expected none: leave it out, it is for imitate and imagine")
    if video is not None:
        if policy in SCRIPTED:
            raise AimeError(
                f"video is {video} for {policy}, which dreams of nothing to show; expected none: leave it out"
            )
        check_film_path(video)
    info, model = load_run(run, device)
    recording = recording_like(environment, info, distractor, data)
    if policy == "expert":
        _check_expert(recording)
    steps = SUITE_STEPS // recording.action_repeat if steps is None else steps
    worlds = [Distracted(recording) for _ in range(min(AT_ONCE, episodes))]
    _check_actions(worlds[0], environment, model, info)
    torch.manual_seed(seed)
    acting, behaviour = _acting(policy, worlds, run, model, planner or PlannerConfig(), seed, noise)
    film = None
    if isinstance(acting, Agent) and behaviour is not None and video is not None:
        film = DreamFilm(acting, behaviour, ahead=max(1, round(1.0 / worlds[0].step_seconds)))
    played = _play_all(acting, worlds, range(seed, seed + episodes), steps, film, told)
    returns = np.concatenate([each.returns for each in played])
    seconds = float(np.median([each.seconds_per_act for each in played]))
    evaluation = AgentEvaluation(
        run=str(run),
        environment=environment,
        policy=policy,
        seed=seed,
        steps=steps,
        returns=tuple(returns.tolist()),
        mean=mean_interval(returns),
        seconds_per_act=seconds,
        at_once=len(worlds),
        distractor=recording.distractor,
        noise=_noise_of(acting),
    )
    if out is not None:
        write_atomically(out, (json.dumps(nan_as_null(to_plain(evaluation)), indent=1) + "\n").encode())
    if film is not None and video is not None:
        write_atomically(video, encode_film(film.pictures(), video.suffix))
    return evaluation


def recording_like(
    environment: str, info: RunInfo, distractor: DistractorKind | None = None, data: str | Path | None = None
) -> Recording:
    """The settings that the run's data was recorded with, or the usual ones where it is not of this environment.

    Args:
        environment: dmc:DOMAIN_TASK.
        info: the run.
        distractor: in place of that of the data.
        data: the run's data, if it has moved.

    Raises:
        AimeError: if there is no such environment, or the data of the run is not there.
    """
    noted = open_dataset(own_data(info) if data is None else data).attributes
    return recording_of(environment, noted, info.model.image_size, distractor)


def recording_of(
    environment: str, noted: Mapping[str, Attribute], image_size: int, distractor: DistractorKind | None = None
) -> Recording:
    """The same, from what a data set notes of its recording.

    Raises:
        AimeError: if there is no such environment.
    """
    if environment.startswith("gym:"):
        raise AimeError(
            f"environment '{environment}': agents play in DeepMind Control alone, gymnasium's environments are there "
            "to be recorded; expected dmc:DOMAIN_TASK, such as dmc:cartpole_swingup"
        )
    domain, task = split_name(environment)
    like = noted if noted.get("environment") == environment else {}
    return Recording(
        domain=domain,
        task=task,
        length=2,
        policy="random",
        seed=0,
        distractor=distractor or str(like.get("distractor", "none")),
        action_repeat=int(like.get("action_repeat", default_action_repeat(domain))),
        image_size=image_size,
        camera=int(like.get("camera", default_camera(domain))),
    )


def _play_all(
    acting: Acting,
    worlds: Sequence[Environment],
    seeds: range,
    steps: int,
    film: DreamFilm | None,
    told: Callable[[int, int], None],
) -> list[Played]:
    played: list[Played] = []
    for first in range(0, len(seeds), len(worlds)):
        some = seeds[first : first + len(worlds)]

        def looked(step: int, arrivals: list[Arrival], actions: np.ndarray, first: int = first) -> None:
            if film is not None and first == 0:
                film.look(step, arrivals)
            told(first * steps + step * len(arrivals), len(seeds) * steps)

        played.append(play(acting, worlds[: len(some)], some, steps, looked))
    return played


def _acting(
    policy: Behaviour,
    worlds: Sequence[Environment],
    run: str | Path,
    model: AIME,
    planner: PlannerConfig,
    seed: int,
    noise: float | None,
) -> tuple[Acting, Proposer | None]:
    """What acts, and what it is taken to do where it dreams."""
    if policy in SCRIPTED:
        return Scripted(worlds, policy == "random"), None
    decider, behaviour = make_decider(policy, run, model, planner, noise)
    return Agent(model, decider), behaviour


def _noise_of(acting: Acting) -> float:
    decider = acting.decider if isinstance(acting, Agent) else None
    return decider.noise if isinstance(decider, PolicyDecider) else 0.0


def make_decider(
    policy: Behaviour, run: str | Path, model: AIME, planner: PlannerConfig, noise: float | None = None
) -> tuple[Decider, Proposer]:
    """What decides for the model of a run, and the policy that stands for it in dreams.

    A planner takes its critic and one proposer from the agent that learned in imagination, where there is one, another
    proposer from the agent that imitates, where there is one, and the action schema. What learned in imagination acts
    under the least noise that it has learned under, unless `noise` says how much; a clone without.

    Raises:
        AimeError: if the run has no such agent, or to plan no rewards.
    """
    if policy != "plan":
        _, networks = load_agent(run, policy, model.dynamics)
        noise = networks.policy.least_noise if noise is None else noise
        return PolicyDecider(networks.policy, noise=noise), networks.policy
    proposers: list[Proposer] = [model.dynamics.expect_control().action_schema]
    critic = None
    for name in get_args(Kind):
        if agent_directory(run, name).is_dir():
            _, networks = load_agent(run, name, model.dynamics)
            proposers.insert(0, networks.policy)
            critic = networks.critic or critic
    return Planner(model.dynamics, planner, critic, tuple(proposers)), proposers[0]


def _check_actions(world: Environment, environment: str, model: AIME, info: RunInfo) -> None:
    if world.action_width != model.config.action_width:
        raise AimeError(
            f"{environment}: has actions of width {world.action_width}, expected {model.config.action_width} as in the "
            f"model of {info.path}; take the environment that its data came from"
        )


def _check_expert(recording: Recording) -> None:
    # a recording refuses a policy with skill where there is no controller
    replace(recording, policy="expert")
