"""The `--help` of verbs that train: the most important settings, on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from aime.cli.arguments import HELP_ALL, has_flag, parse

if TYPE_CHECKING:
    from aime.training.config import TrainConfig

Rows = tuple[tuple[str, str], ...]
"""A flag without its hyphens, with its value, and its meaning."""

DATA_ROWS: Rows = (
    ("data DIR ...", "shards or bundled:cartpole; A B=0.3: 30 % of B"),
    ("held-out SHARE", "of episodes, for validation and test"),
    ("observe-state", "also observe and predict states"),
)
DURATION_ROWS: Rows = (
    ("minutes M", "wall time to train for; or"),
    ("steps N", "optimizer steps, before dynamics fine-tuning"),
    ("seed N", "of weights, clips and noise"),
)
RUN_ROWS: Rows = (
    ("out RUN", "the run directory to write"),
    *DURATION_ROWS,
    ("resume", "continue the run in --out"),
    ("init-from RUN", "start from the weights of another run"),
    ("no-pictures", "draw no pictures of the progress"),
)
SHARED: Mapping[str, Rows] = {
    "hardware": (
        ("device NAME", "auto, cpu or cuda"),
        ("precision NAME", "auto, fp32 or bf16"),
        ("batch N", "clips per batch, of each process"),
        ("length N", "frames per clip"),
        ("accumulate N", "batches per optimizer step"),
    ),
    "learning": (
        ("optimizer.learning-rate X", "peak of the learning rate"),
        ("balancer NAME", "rgb, sum or torchjd:NAME"),
        ("adversary.no-enabled", "train without discriminators"),
        ("overshoot.steps N", "frames predicted ahead in training"),
        ("dynamics-finetuning.share X", "share of dynamics fine-tuning"),
    ),
    "model": (
        ("model.dynamics.kind NAME", "lstm or mingru"),
        ("model.prior.components N", "of the mixture over the next latent"),
        ("model.encoder.channels N", "width of the encoder"),
        ("model.decoder.channels N", "width of the decoder"),
    ),
}
"""Flags of all verbs that train, by section."""


class Screen(NamedTuple):
    """The help of a verb."""

    usage: str
    about: str
    """A sentence or two, in lines of 80 columns at most."""
    sections: Mapping[str, Rows]


TRAIN = Screen(
    "usage: aime train PRESET --data DIR --out RUN (--steps N | --minutes M) [FLAGS]",
    "Train a world model on videos with actions. PRESET is tiny (for CPUs), fast\n"
    "(tiny without attention, adversary and gradient balancing) or base (for GPUs).",
    {"data": DATA_ROWS, "run": RUN_ROWS, **SHARED},
)


def show_help(
    screen: Screen, kind: type[TrainConfig], verb: str, flags: Sequence[str], example: TrainConfig
) -> NoReturn:
    """Print the screen, or with `--help-all` every setting, and exit.

    Args:
        screen: of the verb.
        kind: the verb's options.
        verb: its name.
        flags: those given.
        example: options of a preset, whose values are the defaults.
    """
    if has_flag(flags, HELP_ALL):
        print(f"{screen.usage}\n")
        parse(kind, verb, flags, example)
    print(short_help(screen, verb, example))
    raise SystemExit(0)


def short_help(screen: Screen, verb: str, example: TrainConfig) -> str:
    """The text of a screen, in lines of 80 columns at most."""
    width = max(len(flag) for rows in screen.sections.values() for flag, _ in rows)
    lines = [screen.usage, "", screen.about]
    for section, rows in screen.sections.items():
        lines += ["", f"{section}:"]
        lines += [f"  --{flag:<{width}}  {text}{_default(example, flag)}" for flag, text in rows]
    return "\n".join([*lines, "", f"Defaults are in parentheses. All settings: aime {verb} --help-all"])


def _default(example: TrainConfig, flag: str) -> str:
    """The value of a flag that takes one and has a default, in parentheses."""
    name, _, value = flag.partition(" ")
    if not value or name in ("data", "out", "minutes", "steps", "variants", "levels"):
        return ""
    default = reduce(getattr, name.replace("-", "_").split("."), example)
    return "" if default is None else f" ({default})"
