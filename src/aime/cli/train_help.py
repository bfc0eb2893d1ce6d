"""What `aime train --help` shows: the settings that most runs decide, on one screen."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aime.training.config import TrainConfig

USAGE = "usage: aime train PRESET --data DIR --out RUN (--steps N | --minutes M) [FLAGS]"

_INTRODUCTION = """\
Train a world model on videos with actions. PRESET is tiny (for CPUs), fast
(tiny without attention, adversary and gradient balancing) or base (for GPUs)."""

_CONCLUSION = """\
In parentheses: the default. `aime train --help-all` lists all settings."""

SHOWN: dict[str, tuple[tuple[str, str], ...]] = {
    "data": (
        ("data DIR ...", "shards or bundled:cartpole; A B=0.3: 30 % of B"),
        ("held-out SHARE", "of episodes, for validation and test"),
        ("observe-state", "observe and predict states, too"),
    ),
    "run": (
        ("out RUN", "the run directory to write"),
        ("minutes M", "wall time to train for; or"),
        ("steps N", "optimizer steps, before dynamics fine-tuning"),
        ("seed N", "of weights, clips and noise"),
        ("resume", "continue the run in --out"),
        ("init-from RUN", "start from the weights of another run"),
        ("no-pictures", "draw no pictures of the progress"),
    ),
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
"""By section: a flag without its hyphens, with what follows it, and what it decides."""


def short_help(config: TrainConfig) -> str:
    """The help for runs like `config`, a preset's, whose values are the defaults; lines of 80 columns at most."""
    width = max(len(flag) for rows in SHOWN.values() for flag, _ in rows) + 2
    lines = [USAGE, "", *_INTRODUCTION.splitlines()]
    for section, rows in SHOWN.items():
        lines += ["", f"{section}:"]
        lines += [f"  --{flag:<{width - 2}}  {text}{_default(config, flag)}" for flag, text in rows]
    return "\n".join([*lines, "", *_CONCLUSION.splitlines()])


def _default(config: TrainConfig, flag: str) -> str:
    """The value of a flag that takes one and has a default, in parentheses."""
    name, _, value = flag.partition(" ")
    if not value or name in ("data", "out", "minutes", "steps"):
        return ""
    default = reduce(getattr, name.replace("-", "_").split("."), config)
    return "" if default is None else f" ({default})"
