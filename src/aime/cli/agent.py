"""`aime agent`: training and evaluation of agents."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from aime.agents.actor_critic import ActorCriticConfig
from aime.agents.evaluate import EvaluationConfig, evaluate_agent
from aime.agents.imitation import ImitationConfig
from aime.agents.online import OnlineConfig, learn_online
from aime.agents.runs import train_imagination, train_imitation
from aime.cli.arguments import parse, wants_help
from aime.cli.progress import counting, stages
from aime.errors import AimeError
from aime.primitives.interval_text import NO_INTERVAL, bounds_text
from aime.world_model.bundled import locate


@dataclass(frozen=True)
class ImitateOptions:
    """Clone the behaviour of a data set. Writes RUN/agents/imitate."""

    run: tyro.conf.Positional[Path]
    """A run directory written by `aime train`."""
    data: str | None = None
    """Data to clone. By default the run's data."""
    seed: int = 0
    """Seed of the training."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)


@dataclass(frozen=True)
class ImagineOptions:
    """Train actor and critic in imagination. Writes RUN/agents/imagine."""

    run: tyro.conf.Positional[Path]
    """A run directory written by `aime train`."""
    data: str | None = None
    """Data whose states imagination starts from. By default the run's data."""
    seed: int = 0
    """Seed of the training."""
    learning: ActorCriticConfig = field(default_factory=ActorCriticConfig)


@dataclass(frozen=True)
class OnlineOptions:
    """Repeat: collect data with an agent, train the world model on all data, train a new agent in imagination."""

    run: tyro.conf.Positional[Path]
    """The run directory to start from. If it has an agent `imagine`, that agent collects first."""
    env: str
    """Environment, such as dmc:cartpole_swingup."""
    out: Path
    """Directory to write: data, a run per round, returns. The same command continues after the last round."""
    data: str | None = None
    """The run's data, if it was moved."""
    seed: int = 0
    """Seed of all rounds."""
    online: OnlineConfig = field(default_factory=OnlineConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluationConfig):
    """Evaluate an agent in the real environment: returns with a 95 % interval, and a film."""

    run: tyro.conf.Positional[Path]
    """A run directory written by `aime train`, or bundled:cartpole."""
    env: str
    """Environment, such as dmc:cartpole_swingup, with the recording settings of the run's data."""
    data: str | None = None
    """The run's data, if it was moved. It has the recording settings of the environment."""
    out: Path | None = None
    """JSON file to write. By default RUN/agents/POLICY.json."""
    video: Path | None = None
    """Film of the first episode to write, FILE.webp, .gif or .mp4."""


def main(arguments: list[str]) -> int:
    """Run `aime agent ACTION` and return the exit status."""
    if not arguments or (wants_help(arguments) and arguments[0] not in ACTIONS):
        print(overview())
        return 0
    action, rest = arguments[0], arguments[1:]
    if action not in ACTIONS:
        near = difflib.get_close_matches(action, ACTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `aime agent --help`"
        raise AimeError(f"there is no action '{action}'; expected {', '.join(ACTIONS)}: {hint}")
    return ACTIONS[action](rest)


def overview() -> str:
    """The help of `aime agent`: one line per action."""
    lines = ["usage: aime agent ACTION RUN [OPTIONS]", ""]
    lines += [f"  {name:<9} {SUMMARIES[name]}" for name in ACTIONS]
    return "\n".join([*lines, "", "aime agent ACTION --help lists all options."])


def imitate(arguments: list[str]) -> int:
    """Run `aime agent imitate`."""
    options = parse(ImitateOptions, "agent imitate", arguments)
    with stages() as on_progress:
        directory, figures = train_imitation(options.run, options.data, options.imitation, options.seed, on_progress)
    print(f"{directory}: {_figures(figures)}")
    return 0


def imagine(arguments: list[str]) -> int:
    """Run `aime agent imagine`."""
    options = parse(ImagineOptions, "agent imagine", arguments)
    with stages() as on_progress:
        directory, figures = train_imagination(options.run, options.data, options.learning, options.seed, on_progress)
    print(f"{directory}: {_figures(figures)}")
    return 0


def online(arguments: list[str]) -> int:
    """Run `aime agent online`."""
    options = parse(OnlineOptions, "agent online", arguments)
    with stages() as on_progress:
        latest, means = learn_online(
            options.run, options.env, options.out, options.online, options.seed, on_progress, options.data
        )
    print(f"mean return of each round: {', '.join(f'{mean:.1f}' for mean in means)}")
    print(f"last world model and agent: {latest}")
    return 0


def evaluate(arguments: list[str]) -> int:
    """Run `aime agent evaluate`."""
    options = parse(EvaluateOptions, "agent evaluate", arguments)
    out = options.out or locate(options.run) / "agents" / f"{options.policy}.json"
    with counting("playing") as on_progress:
        found = evaluate_agent(options.run, options.env, options, options.data, options.video, out, on_progress)
    mean, count = found.mean, len(found.returns)
    interval = f"95 %: {bounds_text(mean.bounds, '.1f')}" if mean.bounds else NO_INTERVAL
    Console().print(
        f"{options.policy} in {options.env}: mean return {mean.mean:.1f} ({interval}), "
        f"{count} episodes of {found.steps} steps, noise of {found.noise:g}; "
        f"{1000 * found.seconds_per_act:.1f} ms to act",
        highlight=False,
        soft_wrap=True,
    )
    print(f"returns: {out}")
    if options.video is not None:
        print(f"film: {options.video}")
    return 0


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "imitate": imitate,
    "imagine": imagine,
    "online": online,
    "evaluate": evaluate,
}
SUMMARIES = {
    "imitate": "clone the behaviour of a data set",
    "imagine": "train actor and critic in imagination",
    "online": "repeat: collect data, train the world model, train an agent",
    "evaluate": "measure returns in the real environment",
}
