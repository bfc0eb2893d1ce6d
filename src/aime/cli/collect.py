"""`aime collect`: record environments."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from aime.cli.arguments import parse
from aime.errors import AimeError
from aime.io.collect.collect import collect, directories
from aime.io.collect.distractors import DistractorKind
from aime.io.collect.environment import default_action_repeat, default_camera, split_name
from aime.io.collect.gym_world import GymRecording, check_known
from aime.io.collect.policies import Policy
from aime.io.collect.recording import Recordable, Recording
from aime.primitives.signals import exit_status

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class CollectOptions:
    """Record episodes of DeepMind Control or gymnasium as shards that `aime train --data DIR` reads.

    The same command goes on after an interruption, and a larger --episodes extends a data set. Frames are rendered
    without shadows and reflections. Episode e depends on the settings and on e alone. The reward and termination of a
    frame describe the arrival at it; the first reward and the last action of an episode are NaN.
    """

    environments: tyro.conf.Positional[tuple[str, ...]]
    """Such as dmc:cartpole_swingup, gym:CartPole-v1, or gym:MODULE:ENV_ID for one that a module registers. A
    gymnasium environment must render rgb_array and have continuous actions with bounds, or discrete ones; policies are
    random and smooth. Each of several is recorded into its own directory DIR/DOMAIN_TASK, because
    their actions differ; one alone goes into DIR itself."""
    out: Path
    """The directory to record into."""
    episodes: int = 100
    """How many of each environment the directory shall hold."""
    length: int = 100
    """Frames of an episode; environments are recorded without their time limit."""
    policy: Policy = "random"
    """random: independent and uniform; smooth: correlated in time, at a strength drawn for each episode; expert: a
    scripted controller (cartpole and reacher have one); medium: that with a share of smooth noise; mixed: each episode
    smooth, medium or expert."""
    seed: int = 0
    """Another seed gives other episodes."""
    distractor: DistractorKind = "none"
    """Replace sky and floor by a computed still picture (static) or film (dynamic), another one each episode."""
    action_repeat: int | None = None
    """Simulator steps per frame; rewards are summed over them. By default PlaNet's table (4 for reacher, cheetah and
    ball_in_cup, 2 for finger and walker), but 4 for cartpole, 2 for the rest, and 1 in gymnasium."""
    image_size: int = 64
    """Height and width of a frame in pixels."""
    camera: int | None = None
    """The number of a camera of the task. By default 0, and 2 for quadruped."""
    masks: bool = True
    """Also record which body each pixel shows, for scores; only in DeepMind Control. See `aime data DIR`."""
    workers: int | None = None
    """Processes to record in. By default one for each core."""


def main(arguments: list[str]) -> int:
    """Run `aime collect` and return the exit status."""
    options = parse(CollectOptions, "collect", arguments)
    recordings = _recordings(options)
    workers = options.workers or len(os.sched_getaffinity(0))
    console = Console(stderr=True)
    for recording in recordings:
        console.print(recording.summary, highlight=False)
    try:
        frames = collect(recordings, options.out, options.episodes, workers, console=console)
    except KeyboardInterrupt as error:
        print("aime collect: interrupted; all shards written are whole: run the same command to go on", file=sys.stderr)
        return exit_status(error)
    for place in directories(recordings, options.out):
        print(f"{place}: {options.episodes} episodes" + ("" if frames else ", all recorded before"))
    return 0


def _recordings(options: CollectOptions) -> list[Recordable]:
    """One recording for each environment, after the checks of what the parser cannot know.

    Raises:
        AimeError: if a number is out of range, or an environment is unknown, missing or named twice.
    """
    for name, least, most in (
        ("episodes", 1, 999_999),
        ("length", 2, 1_000_000),
        ("seed", 0, MAX_SEED),
        ("action_repeat", 1, 1000),
        ("image_size", 8, 1024),
        ("camera", 0, 1000),
        ("workers", 1, 1024),
    ):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise AimeError(f"--{name.replace('_', '-')} is {value}, expected {least} to {most}")
    if not options.environments:
        raise AimeError("no environment is named, expected one or more; write for instance dmc:cartpole_swingup")
    if len(set(options.environments)) < len(options.environments):
        raise AimeError(f"environments {' '.join(options.environments)}: one is named twice; name each once")
    return [_recording(options, name) for name in options.environments]


def _recording(options: CollectOptions, name: str) -> Recordable:
    scheme, _, rest = name.partition(":")
    return _of_gym(options, rest) if scheme == "gym" and rest else _of_control(options, *split_name(name))


def _of_gym(options: CollectOptions, environment: str) -> GymRecording:
    for flag, given in (("distractor", options.distractor != "none"), ("camera", options.camera is not None)):
        if given:
            raise AimeError(f"--{flag} is for dmc: environments, not for gym:{environment}; leave it out")
    check_known(environment)
    repeat = 1 if options.action_repeat is None else options.action_repeat
    return GymRecording(environment, options.length, options.policy, options.seed, repeat, options.image_size)


def _of_control(options: CollectOptions, domain: str, task: str) -> Recording:
    repeat, camera = options.action_repeat, options.camera
    return Recording(
        domain=domain,
        task=task,
        length=options.length,
        policy=options.policy,
        seed=options.seed,
        distractor=options.distractor,
        action_repeat=default_action_repeat(domain) if repeat is None else repeat,
        image_size=options.image_size,
        camera=default_camera(domain) if camera is None else camera,
        masks=options.masks,
    )
