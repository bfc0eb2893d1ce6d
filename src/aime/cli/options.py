"""Options of verbs that evaluate a run on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from aime.inference.request import EvaluationRequest


@dataclass(frozen=True, kw_only=True)
class UnseenClips:
    """Which clips are predicted, and from how many frames of context."""

    run: tyro.conf.Positional[Path]
    """A run directory written by `aime train`, or bundled:cartpole."""
    data: str | None = None
    """Directory of shards, one shard, or bundled:NAME; several separated by commas. By default the run's data.
    Episodes that the run was trained on are always left out."""
    part: Literal["test", "validation", "all"] = "test"
    """Which held-out episodes: test for reports, validation for choices."""
    context: int = 5
    """Number of frames that the model observes."""
    horizon: int = 45
    """Number of frames to predict."""
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
    """Also how many clips, and how many samples of each."""

    samples: int = 16
    """Sampled futures per clip."""
    clips: int | None = None
    """Maximum number of clips, 64 by default. The first clip of every episode is used before any second one."""

    @property
    def request(self) -> EvaluationRequest:
        """The evaluation that the options ask for, with that many samples and clips."""
        return replace(super().request, samples=self.samples, clips=self.clips)
