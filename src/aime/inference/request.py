"""The clips and settings of an evaluation, as one typed value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aime.errors import AimeError
from aime.inference.loading import check_lengths
from aime.inference.unseen import Part
from aime.primitives.hardware import Device

MOST_CLIPS = 64
"""Clips that an evaluation takes by default: the first of every episode, then the second, and so on."""


@dataclass(frozen=True)
class EvaluationRequest:
    """On which clips a run is evaluated, and how.

    Raises:
        AimeError: if a number is below 1.
    """

    data: str | Path | None = None
    """A directory of shards, one shard or bundled:NAME; by default, the run's own data. Episodes that the run was
    trained on are left out, wherever they lie: see `open_unseen`."""
    part: Part = "test"
    """Of the unseen episodes: "test" to report on, "validation" to choose by, or "all"."""
    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    samples: int = 16
    """Sampled futures of each clip."""
    clips: int | None = None
    """At most so many clips, `MOST_CLIPS` by default; the first clip of every episode comes first."""
    device: Device = "auto"

    def __post_init__(self) -> None:
        check_lengths(self.context, self.horizon)
        for name in ("samples", "clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AimeError(f"{name} is {value}; expected 1 or more: leave --{name} out for the usual number")

    @property
    def length(self) -> int:
        """Frames of a clip: context and horizon."""
        return self.context + self.horizon

    @property
    def most_clips(self) -> int:
        """At most so many clips."""
        return MOST_CLIPS if self.clips is None else self.clips
