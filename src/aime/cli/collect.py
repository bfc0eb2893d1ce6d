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
    """Record episodes of DeepMind Control or gymnasium as shards, which `aime train --data DIR` reads.

    After an interruption, the same command continues. A larger --episodes extends a data set. Reward and termination
    of a frame describe the arrival at it; the first reward and the last action of an episode are NaN.
    """

    environments: tyro.conf.Positional[tuple[str, ...]]
    """Such as dmc:cartpole_swingup, gym:CartPole-v1, or gym:MODULE:ENV_ID, where MODULE registers ENV_ID.
    A gymnasium environment must render rgb_array and have bounded continuous or discrete actions.
    Several environments are recorded into DIR/DOMAIN_TASK each."""
    out: Path
    """Directory to write."""
    episodes: int = 100
    """Number of episodes per environment in the directory, including those recorded before."""
    length: int = 100
    """Frames per episode; it replaces the time limit of the environment."""
    policy: Policy = "random"
    """random: uniform, independent. smooth: correlated in time. expert: scripted (cartpole, reacher).
    medium: expert with a share of smooth noise. mixed: each episode smooth, medium or expert.
    For gymnasium: random or smooth."""
    seed: int = 0
    """Seed of the episodes."""
    distractor: DistractorKind = "none"
    """Replace sky and floor with a static or moving procedural image, a different one per episode."""
    action_repeat: int | None = None
    """Simulator steps per frame; rewards are summed. By default 4 for cartpole, reacher, cheetah and ball_in_cup,
    2 for other tasks of DeepMind Control, 1 for gymnasium."""
    image_size: int = 64
    """Height and width of a frame in pixels."""
    camera: int | None = None
    """Number of the camera. By default 0, and 2 for quadruped."""
    masks: bool = True
    """Record the body of each pixel, for scores (DeepMind Control only)."""
    workers: int | None = None
    """Number of processes. By default one per core."""


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
        print(
            "aime collect: interrupted; all written shards are complete: run the same command to continue",
            file=sys.stderr,
        )
        return exit_status(error)
    for place in directories(recordings, options.out):
        print(f"{place}: {options.episodes} episodes" + ("" if frames else ", all recorded earlier"))
    return 0


def _recordings(options: CollectOptions) -> list[Recordable]:
    """One recording per environment, after checks that the parser cannot do.

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
