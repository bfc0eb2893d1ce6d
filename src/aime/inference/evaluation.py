"""The result of an evaluation as one typed value, and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from aime.errors import AimeError
from aime.primitives.plain import nan_as_null, to_plain

DEFINITIONS: dict[str, str] = {
    "horizon": "frames after the last one that the model has seen; averages are over clips",
    "mse": "mean squared error of the mean of the sampled futures, over pixel values in [0, 1]",
    "psnr": "-10 log10(mse) in dB of each frame (data range 1, at most 100), then averaged",
    "ssim": "structural similarity of each frame (Gaussian window of 1.5 pixels, data range 1), then averaged",
    "skill": "1 - mse / min(mse of persistence, mse of climatology), each averaged over clips first: above 0 the model "
    "knows where things go, 1 is perfect; null where a baseline is exactly right",
    "*_likeliest": "the same of the single most likely future: the heaviest component's mean at each step",
    "energy_score": "mean distance of a sample from the truth minus half the mean distance of two samples, as root "
    "mean square over pixel values: lower is better, and only the true distribution is best",
    "coverage": "share of pixel values of the truth within the central 80 % interval of the samples (ideal 0.8), give "
    "or take half a grey level; null below 9 samples",
    "coverage_uncertain": "coverage among the pixel values whose interval is wider than one grey level",
    "best_of": "the one sample of the first best_of_samples that is closest to the truth over the whole horizon",
    "reconstruction": "each frame decoded from the latent that was inferred from it; psnr_mean_image is what the "
    "training set's mean image alone scores on the same frames",
    "persistence": "the baseline that repeats the last frame of the context",
    "climatology": "the baseline that always shows the training set's mean image",
    "states": "the robot's or simulator's own state, foretold by the mean of the sampled futures: error is the root "
    "mean square over its numbers in units of each one's spread over the training data, persistence and climatology "
    "are the errors of the last known state and of the mean, r2 is 1 - error² / climatology²",
    "surprise": "-log p(frame | past) in nats per frame, an importance-weighted upper bound",
    "prior_nll": "-log p(z | past) in nats per frame after the context, z a sample of the posterior, all frames before "
    "it seen: it depends on the scale of the latents, which every training makes for itself",
    "kl_z": "the same plus log q(z), which is KL(q ‖ p): it does not change with the scale of the latents",
    "effective_components": "exp(entropy) of the prior's mixture weights, averaged over frames and clips first",
    "codebook_perplexity": "exp(entropy) of the shares of the codes among all tokens",
}


@dataclass(frozen=True)
class FrameScores:
    """How far frames are from the truth."""

    mse: float
    psnr: float


@dataclass(frozen=True)
class HorizonScores:
    """The scores of the frames that lie one given number of steps ahead; see `DEFINITIONS`."""

    mse: float
    psnr: float
    ssim: float
    skill: float
    mse_likeliest: float
    psnr_likeliest: float
    ssim_likeliest: float
    skill_likeliest: float
    energy_score: float
    coverage: float
    coverage_uncertain: float


@dataclass(frozen=True)
class ReconstructionScores:
    """How well frames are drawn from their own latents."""

    mse: float
    psnr: float
    ssim: float
    psnr_mean_image: float


@dataclass(frozen=True)
class StateScores:
    """How well the state is foretold a given number of steps ahead; errors in units of its spread over the data."""

    r2: float
    error: float
    persistence: float
    """Of repeating the last known state."""
    climatology: float
    """Of the training data's mean."""


@dataclass(frozen=True)
class Baselines:
    """What predictors that know nothing score, by horizon."""

    persistence: dict[int, FrameScores]
    climatology: dict[int, FrameScores]


@dataclass(frozen=True)
class Evaluation:
    """What a run's predictions came to; see `DEFINITIONS` for every number. What is undefined is NaN, in JSON null."""

    run: str
    data: str
    split: str
    """The part of the data that was taken: "held-out" or "all"."""
    weights: str
    """SHA-256 of the averaged weights."""
    clips: int
    context: int
    horizon: int
    samples: int
    horizons: dict[int, HorizonScores]
    """By frames ahead, 1..horizon; the best-of scores and the baselines likewise."""
    best_of_samples: int
    best_of: dict[int, FrameScores]
    reconstruction: ReconstructionScores
    baselines: Baselines
    surprise: float
    surprise_by_frame: list[float]
    """Of frames 1..context + horizon."""
    prior_nll: float
    kl_z: float
    effective_components: float
    codebook_perplexity: float
    states: dict[int, StateScores] | None = None
    """By frames ahead; None where model or data have no state."""

    def to_json(self) -> str:
        """JSON with every field by its name, and `definitions`, a sentence on each number."""
        content = to_plain(self)
        assert isinstance(content, dict)
        return json.dumps(nan_as_null({**content, "definitions": to_plain(DEFINITIONS)}), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> Evaluation:
        """Read what `to_json` made.

        Args:
            text: the JSON.
            source: the file it came from, for messages.

        Raises:
            AimeError: if it is not JSON, or has other fields.
        """
        try:
            content = json.loads(text)
            content.pop("definitions")
            states = content.pop("states", None)
            content = _with_nan(content)
            content["horizons"] = _by_horizon(HorizonScores, content["horizons"])
            content["states"] = None if states is None else _by_horizon(StateScores, states)
            content["best_of"] = _by_horizon(FrameScores, content["best_of"])
            content["reconstruction"] = ReconstructionScores(**_with_nan(content["reconstruction"]))
            baselines = content["baselines"]
            content["baselines"] = Baselines(**{name: _by_horizon(FrameScores, baselines[name]) for name in baselines})
            return cls(**{each.name: content.pop(each.name) for each in fields(cls)}, **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise AimeError(f"{source}: no evaluation: {error}; write it anew with `aime evaluate`") from error


def _by_horizon(kind: type, content: dict[str, dict[str, Any]]) -> dict[int, Any]:
    return {int(number): kind(**_with_nan(scores)) for number, scores in content.items()}


def _with_nan(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in scores.items()}
