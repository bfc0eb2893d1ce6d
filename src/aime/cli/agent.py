"""`aime agent`: imitate, learn in imagination, and be judged in the real environment."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from aime.agents.actor_critic import ActorCriticConfig
from aime.agents.imitation import ImitationConfig
from aime.agents.online import OnlineConfig
from aime.agents.planner import PlannerConfig
from aime.cli.arguments import parse, wants_help
from aime.cli.progress import counting, stages
from aime.errors import AimeError
from aime.io.collect.distractors import DistractorKind
from aime.primitives.interval_text import NO_INTERVAL, bounds_text


@dataclass(frozen=True)
class ImitateOptions:
    """Clone the behaviour that a data set shows: RUN/agents/imitate."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote."""
    data: str | None = None
    """Whose behaviour. By default that of the run's own data."""
    seed: int = 0
    imitation: ImitationConfig = field(default_factory=ImitationConfig)


@dataclass(frozen=True)
class ImagineOptions:
    """Let an actor and a critic learn in the dreams of a run: RUN/agents/imagine."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote."""
    data: str | None = None
    """Where dreams start. By default the run's own data."""
    seed: int = 0
    learning: ActorCriticConfig = field(default_factory=ActorCriticConfig)


@dataclass(frozen=True)
class OnlineOptions:
    """Go on with a run in the real environment: collect, train the world model, learn in imagination, and again."""

    run: tyro.conf.Positional[Path]
    """The run directory to start from; its agent imagine, where it has one, collects first."""
    env: str
    """Such as dmc:cartpole_swingup."""
    out: Path
    """A directory of its own: data, a run a round, returns. The same command again goes on after the last round."""
    data: str | None = None
    """The run's data, if it has moved. By default it is looked for where it was."""
    seed: int = 0
    online: OnlineConfig = field(default_factory=OnlineConfig)


@dataclass(frozen=True)
class EvaluateOptions:
    """Play some episodes in the real environment: returns with a 95 % interval, and a film."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote, or bundled:cartpole."""
    env: str
    """Such as dmc:cartpole_swingup; it is recorded as the run's data was, if that is from there."""
    data: str | None = None
    """The run's data, if it has moved: it says how the environment was recorded. By default it is looked for where it
    was."""
    distractor: DistractorKind | None = None
    """What sky and floor are replaced by: none, static or dynamic. By default as in the run's data."""
    policy: Literal["imitate", "imagine", "plan", "expert", "random"] = "imagine"
    """The agent; or plan, with what of the agents is there; or, to compare, the task's scripted controller (expert) or
    chance (random)."""
    episodes: int = 10
    noise: float | None = None
    """Standard deviation of what is added to the actions of imitate and imagine. By default the least that imagine has
    learned under, and none for imitate."""
    seed: int = 10_000
    """Of the first episode; each has the next one."""
    steps: int | None = None
    """Frames of an episode. By default those of 1000 simulated steps."""
    out: Path | None = None
    """A JSON file to write. By default RUN/agents/POLICY.json."""
    video: Path | None = None
    """A film of an agent's first episode to write, FILE.webp, .gif or .mp4: the frame, the dream a second ahead,
    attention."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    planner: PlannerConfig = field(default_factory=PlannerConfig)


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
    """The help of the verb as a whole: a line an action."""
    lines = ["usage: aime agent ACTION RUN [OPTIONS]", ""]
    lines += [f"  {name:<9} {SUMMARIES[name]}" for name in ACTIONS]
    return "\n".join([*lines, "", "aime agent ACTION --help explains the rest."])


def imitate(arguments: list[str]) -> int:
    """Run `aime agent imitate`."""
    options = parse(ImitateOptions, "agent imitate", arguments)
    from aime.agents.runs import train_imitation

    with stages() as on_progress:
        directory, figures = train_imitation(options.run, options.data, options.imitation, options.seed, on_progress)
    print(f"{directory}: {_figures(figures)}")
    return 0


def imagine(arguments: list[str]) -> int:
    """Run `aime agent imagine`."""
    options = parse(ImagineOptions, "agent imagine", arguments)
    from aime.agents.runs import train_imagination

    with stages() as on_progress:
        directory, figures = train_imagination(options.run, options.data, options.learning, options.seed, on_progress)
    print(f"{directory}: {_figures(figures)}")
    return 0


def online(arguments: list[str]) -> int:
    """Run `aime agent online`."""
    options = parse(OnlineOptions, "agent online", arguments)
    from aime.agents.online import learn_online

    with stages() as on_progress:
        latest, means = learn_online(
            options.run, options.env, options.out, options.online, options.seed, on_progress, options.data
        )
    print(f"mean return of each round: {', '.join(f'{mean:.1f}' for mean in means)}")
    print(f"the last world model and its agent: {latest}")
    return 0


def evaluate(arguments: list[str]) -> int:
    """Run `aime agent evaluate`."""
    options = parse(EvaluateOptions, "agent evaluate", arguments)
    from aime.agents.evaluate import evaluate_agent
    from aime.world_model.bundled import locate

    out = options.out or locate(options.run) / "agents" / f"{options.policy}.json"
    with counting("playing") as on_progress:
        found = evaluate_agent(
            options.run,
            options.env,
            options.policy,
            options.episodes,
            options.planner,
            options.seed,
            options.steps,
            options.device,
            options.video,
            out,
            on_progress,
            options.distractor,
            options.noise,
            options.data,
        )
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
    "imitate": "clone the behaviour that data shows",
    "imagine": "let an actor and a critic learn in dreams",
    "online": "collect, train and learn by turns in the real environment",
    "evaluate": "play in the real environment, and count returns",
}
