"""The run that the campaign's trainings take is one that this version can train."""

from __future__ import annotations

from reliability.tiny_run import MODEL, TRAINING

from aime.cli.arguments import refuse_unknown_flags
from aime.training.config import TrainConfig


def test_its_flags_are_settings() -> None:
    refuse_unknown_flags(TrainConfig, "train", f"{MODEL} {TRAINING}".split())
