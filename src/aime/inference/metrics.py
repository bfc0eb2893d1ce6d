"""Metrics of predicted frames: errors, similarity, skill, and scores of sampled futures.

Axes: B clips, S samples, F frames, `3 H W` pixel values in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from aime.primitives.pixels import GREY_LEVEL

PSNR_CEILING = 100.0
"""dB given to a frame that is exactly right, whose PSNR would be infinite and spoil every mean."""

TAIL = 0.1
"""The share of truths that should lie below the samples' 80 % interval, and the share that should lie above."""


class Coverage(NamedTuple):
    """How much of the truth lies within the samples' 80 % interval, per frame."""

    everywhere: Float[Tensor, "B F"]
    """Share of pixel values inside, 0..1; nominal 0.8."""
    held: Float[Tensor, "B F"]
    """Number of pixel values inside, among those whose interval is wider than one grey level."""
    uncertain: Float[Tensor, "B F"]
    """Number of pixel values whose interval is wider than one grey level."""


def frame_mse(predicted: Float[Tensor, "*N 3 H W"], truth: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N"]:
    """Mean squared error of each frame, over its pixel values; 0..1 for values in [0, 1]."""
    return (predicted - truth).square().mean(dim=(-3, -2, -1))


def psnr(mse: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Peak signal-to-noise ratio in dB of frames with data range 1: -10 log10(MSE), at most `PSNR_CEILING`."""
    return -10 * torch.log10(mse.clamp_min(10 ** (-PSNR_CEILING / 10)))


def ssim(predicted: Float[Tensor, "N 3 H W"], truth: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
    """Structural similarity of each frame, -1..1, with a Gaussian window of 1.5 pixels and data range 1.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", equation 13.
    """
    scores = [
        structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
        for ours, theirs in zip(predicted.split(64), truth.split(64), strict=True)
    ]
    return torch.cat([torch.atleast_1d(score) for score in scores])


def skill(
    mse: Float[Tensor, "*N"], persistence: Float[Tensor, "*N"], mean_image: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """1 - MSE / min(MSE of persistence, MSE of mean_image), each already averaged over clips.

    1 is perfect, 0 is as good as the better baseline, NaN where a baseline is exactly right. The form is that of the
    mean-square-error skill score: Murphy 1988, "Skill scores based on the mean square error", equation 4.
    """
    reference = torch.minimum(persistence, mean_image)
    return torch.where(reference > 0, 1 - mse / reference, torch.nan)


def energy_score(samples: Float[Tensor, "B S F *value"], truth: Float[Tensor, "B F *value"]) -> Float[Tensor, "B F"]:
    """E‖X - y‖ - ½ E‖X - X'‖ of each frame or latent, the norm as root mean square over its values: 0 is best.

    A proper score: in expectation only the true distribution minimises it, so that neither a blurry mean nor a single
    sharp guess does. Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", equation 22;
    the pairs X, X' are different samples, so that the number of samples does not bias it (Ferro 2014, "Fair scores for
    ensemble forecasts"). One sample is scored by its distance alone.
    """
    count, values = samples.shape[1], truth[0, 0].numel()
    scores = []
    for clip, target in zip(samples, truth, strict=True):
        error = rearrange(clip - target, "s f ... -> f s (...)")
        distance = error.norm(dim=-1).mean(dim=-1)
        spread = torch.cdist(error, error).sum(dim=(-2, -1)) / max(count * (count - 1), 1)
        scores.append((distance - spread / 2) / values**0.5)
    return torch.stack(scores)


def coverage(samples: Float[Tensor, "B S F 3 H W"], truth: Float[Tensor, "B F 3 H W"]) -> Coverage | None:
    """How much of the truth lies between the samples' 10 % and 90 % quantiles; None below 9 samples.

    The p-quantile of S samples is their order statistic number p(S+1), interpolated: the one definition for which the
    truth, if it is one more draw of the same distribution, falls below with probability p whatever S is (Weibull's
    plotting position; Hyndman & Fan 1996, "Sample quantiles in statistical packages", definition 6). The truth is
    known to half a grey level, and is inside if any value that rounds to it is.
    """
    count = samples.shape[1]
    place = TAIL * (count + 1) - 1
    if place < 0:
        return None
    tally: list[list[Tensor]] = [[], [], []]
    for clip, target in zip(samples, truth, strict=True):
        low, high = _from_below(clip, place), -_from_below(-clip, place)
        inside = (target >= low - GREY_LEVEL / 2) & (target <= high + GREY_LEVEL / 2)
        uncertain = high - low > GREY_LEVEL
        tally[0].append(inside.float().mean(dim=(-3, -2, -1)))
        tally[1].append((inside & uncertain).sum(dim=(-3, -2, -1)).float())
        tally[2].append(uncertain.sum(dim=(-3, -2, -1)).float())
    return Coverage(*(torch.stack(each) for each in tally))


def _from_below(samples: Float[Tensor, "S *N"], place: float) -> Float[Tensor, "*N"]:
    """The value at a place, counted from 0 and interpolated, of the samples in rising order."""
    # a few passes of minimum and maximum take a fiftieth of the time of sorting
    lowest = [torch.full_like(samples[0], torch.inf)] * (int(place) + 2)
    for sample in samples:
        for rank, kept in enumerate(lowest):
            lowest[rank], sample = torch.minimum(kept, sample), torch.maximum(kept, sample)
    return torch.lerp(lowest[-2], lowest[-1], place - int(place))


def best_of(mse: Float[Tensor, "B S F"]) -> Float[Tensor, "B F"]:
    """The errors of the one sample of each clip whose mean error over all F frames is lowest."""
    best = mse.mean(dim=-1).argmin(dim=1)
    return mse[torch.arange(mse.shape[0], device=mse.device), best]


def perplexity(weights: Float[Tensor, "*N K"]) -> Float64[Tensor, "*N"]:
    """exp(entropy) of non-negative weights over K, normalised: how many of them are in even use, 1..K."""
    shares = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return torch.special.entr(shares).sum(dim=-1).exp()
