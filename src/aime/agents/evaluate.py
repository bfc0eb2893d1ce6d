"""How well an agent does: returns in the real environment with intervals, and a film."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from aime.agents.agent import Agent, PolicyDecider
from aime.agents.planner import Planner, PlannerConfig
from aime.agents.playing import Player, Scripted, play
from aime.agents.policy import Behaviour
from aime.agents.saved import Kind, agent_directory, load_agent
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.errors import AimeError
from aime.inference.agent_film import AgentFilm
from aime.inference.animation import check_film_path, encode_film
from aime.inference.loading import load_run
from aime.inference.own_data import open_own
from aime.io.collect.distractors import DistractorKind
from aime.io.collect.environment import Arrival
from aime.io.collect.recording import Distracted, recording_of
from aime.primitives.config_io import nan_as_null, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.hardware import Device
from aime.primitives.intervals import Interval, mean_interval

PolicyName = Literal["imitate", "imagine", "plan", "expert", "random"]

SCRIPTED: tuple[PolicyName, ...] = ("expert", "random")
AT_ONCE = 10
"""Episodes in one batch, which bounds the memory of the renderers."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How an agent is evaluated."""

    policy: PolicyName = "imagine"
    """imitate or imagine: an agent of the run. plan: a planner. expert (scripted controller), random: baselines."""
    episodes: int = 10
    """Number of episodes."""
    seed: int = 10_000
    """Seed of the first episode. Each episode has the next seed."""
    steps: int | None = None
    """Frames per episode. By default those of 1000 simulator steps."""
    noise: float | None = None
    """Standard deviation of noise on the actions of imitate (default 0) and imagine (default: as in training)."""
    distractor: DistractorKind | None = None
    """What replaces sky and floor. By default as in the run's data."""
    device: Device = "auto"
    planner: PlannerConfig = field(default_factory=PlannerConfig)

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        if self.episodes < 1:
            raise AimeError(f"episodes is {self.episodes}; expected 1 or more")
        if self.noise is not None and self.policy not in get_args(Kind):
            raise AimeError(f"noise is {self.noise} for {self.policy}; expected none: it is for imitate and imagine")


@dataclass(frozen=True)
class AgentEvaluation:
    """The returns of some episodes, in the environment's units.

    Attributes:
        mean: with a 95 % interval over episodes, NaN for one episode.
        seconds_per_act: median time to observe a frame of all episodes of a batch, and to act.
        at_once: episodes in a batch.
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


def evaluate_agent(
    run: str | Path,
    environment: str,
    config: EvaluationConfig,
    data: str | Path | None = None,
    video: Path | None = None,
    out: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AgentEvaluation:
    """Play some episodes and compute their returns.

    The environment, dmc:DOMAIN_TASK, has the settings that the run's data was recorded with, if that is from there;
    `data` is the run's data, if it has moved. `out` gets the evaluation as JSON, and `video`, FILE.webp, .gif or .mp4,
    a film of the first episode. `on_progress` is called with the steps done and the steps in all.

    Raises:
        AimeError: if run, agent, environment and files do not fit together; before anything is played.
    """
    policy, seed, episodes = config.policy, config.seed, config.episodes
    if video is not None:
        if policy in SCRIPTED:
            raise AimeError(f"video is {video} for {policy}, which has no dreams to show; expected none: leave it out")
        check_film_path(video)
    info, model = load_run(run, config.device)
    noted = open_own(info, data).attributes
    recording = recording_of(environment, noted, info.model.image_size, config.distractor)
    if policy == "expert":
        replace(recording, policy="expert")  # refuses a task without a controller
    steps = recording.suite_steps if config.steps is None else config.steps
    worlds = [Distracted(recording) for _ in range(min(AT_ONCE, episodes))]
    if worlds[0].action_width != model.config.action_width:
        raise AimeError(
            f"{environment}: has actions of width {worlds[0].action_width}, expected {model.config.action_width} as in "
            f"the model of {info.path}; take the environment that its data came from"
        )
    torch.manual_seed(seed)
    agent = film = None
    acting_noise = 0.0
    if policy not in SCRIPTED:
        decider = _decider(config, run, model.dynamics)
        acting_noise = decider.noise if isinstance(decider, PolicyDecider) else 0.0
        agent, behaviour = Agent(model, decider), decider.behaviour
        film = AgentFilm(model, lambda state: behaviour(*state.read).mode, max(1, round(1 / worlds[0].step_seconds)))

    def on_step(number: int, step: int, arrivals: list[Arrival]) -> None:
        if video is not None and number == 0:
            assert film and agent and agent.state and agent.seen, "checked with the request"
            film.add(arrivals[0].pixels, agent.state, agent.seen)
        on_progress(number * steps + step * len(arrivals), episodes * steps)

    player: Player = agent or Scripted(worlds, policy == "random")
    returns, seconds = play(player, worlds, range(seed, seed + episodes), steps, on_step)
    evaluation = AgentEvaluation(
        str(run),
        environment,
        policy,
        seed,
        steps,
        tuple(returns.tolist()),
        mean_interval(returns),
        seconds_per_act=seconds,
        at_once=len(worlds),
        distractor=recording.distractor,
        noise=acting_noise,
    )
    if out is not None:
        write_atomically(out, (json.dumps(nan_as_null(to_plain(evaluation)), indent=1) + "\n").encode())
    if film is not None and video is not None:
        write_atomically(video, encode_film(film.pictures(), video.suffix))
    return evaluation


def _decider(config: EvaluationConfig, run: str | Path, dynamics: LatentDynamics) -> PolicyDecider | Planner:
    """The decider of `imitate`, `imagine` or `plan` for the model of a run.

    A planner has the critic of `imagine`, and as proposers the policies of `imagine` and `imitate`, as far as the run
    has these agents, and the action schema.
    """
    if config.policy != "plan":
        actor = load_agent(run, config.policy, dynamics).policy
        return PolicyDecider(actor, noise=actor.least_noise if config.noise is None else config.noise)
    control = dynamics.expect_rewards()
    agents = [load_agent(run, name, dynamics) for name in ("imagine", "imitate") if agent_directory(run, name).is_dir()]
    critics = [each.critic for each in agents if each.critic is not None]
    proposers: list[Behaviour] = [each.policy for each in agents]
    return Planner(dynamics, config.planner, critics[0] if critics else None, (*proposers, control.action_schema))
