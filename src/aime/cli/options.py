"""Options that several verbs share: the clips of a run that it has never seen, and how they are evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from aime.inference.request import EvaluationRequest


@dataclass(frozen=True, kw_only=True)
class UnseenClips:
    """Clips of a run's unseen episodes, of which the model sees the beginning and predicts the rest."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote, or bundled:cartpole."""
    data: str | None = None
    """A directory of shards, one shard, or bundled:NAME; several by commas. By default the run's own data. Episodes
    that the run was trained on are left out, wherever they lie."""
    part: Literal["test", "validation", "all"] = "test"
    """The half of the unseen episodes: test for reports, validation for choices."""
    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def request(self) -> EvaluationRequest:
        """The evaluation that the options ask for.

        Raises:
            AimeError: if a number is below 1.
        """
        from aime.inference.request import EvaluationRequest

        return EvaluationRequest(
            data=self.data, part=self.part, context=self.context, horizon=self.horizon, device=self.device
        )


@dataclass(frozen=True, kw_only=True)
class Evaluated(UnseenClips):
    """Unseen clips, and how many futures of how many of them are sampled."""

    samples: int = 16
    """Sampled futures of each clip."""
    clips: int | None = None
    """At most so many clips; by default 64, the first of every episode before the second of any."""

    @property
    def request(self) -> EvaluationRequest:
        """The evaluation that the options ask for, with that many samples and clips."""
        return replace(super().request, samples=self.samples, clips=self.clips)
