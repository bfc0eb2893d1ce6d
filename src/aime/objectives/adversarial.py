"""The adversarial task: the loss of the model against two discriminators, and the loss of the discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from aime.errors import AimeError, expect_shares
from aime.objectives.ledger import Scalar, TaskLoss, weigh
from aime.objectives.weights import AdversarialWeights
from aime.primitives.config_io import Removed
from aime.primitives.draws import draw_valid_first
from aime.primitives.frozen import frozen
from aime.primitives.masked_mean import masked_mean
from aime.representation.discriminators import CHANNELS, LEVELS, WINDOW, Discriminators, Judged, Judgement


@dataclass(frozen=True)
class AdversaryConfig:
    """Schedule and weight of the adversarial task.

    Raises:
        AimeError: if `vote` is not in [0, 1].
    """

    enabled: bool = True
    """Whether there is an adversarial task."""
    n_critic: ClassVar[int] = 2
    """Steps of the model per step of the discriminators."""
    warmup: ClassVar[float] = 0.5
    """Share of the run, in [0, 1], before the model gets their gradient. The discriminators train from the start: the
    gradient of an untrained one is noise, which breaks reconstructions."""
    ramp: ClassVar[float] = 0.25
    """Share of the run over which the weight rises from 0 to its full value."""
    vote: float = 0.03
    """The adversarial task's weight in [0, 1] in RGB's consensus direction, once the ramp is over. At 1 the consensus
    turns the likelihood's gradient towards the discriminators'; at 0 the adversarial gradient is added unchanged. Its
    size is set by `weights.adversarial`."""
    frames: ClassVar[int] = 32
    """Frames of a batch that are judged in a step, in random windows of consecutive frames."""
    learning_rate: ClassVar[float] = 4e-4
    """Of the discriminators, which Adam trains."""
    betas: ClassVar[tuple[float, float]] = (0.5, 0.9)
    discriminators: ClassVar[Removed] = Removed({"channels": CHANNELS, "levels": LEVELS, "window": WINDOW})
    """Sizes, now constants of `Discriminators`."""

    def __post_init__(self) -> None:
        expect_shares(self, "vote", of="adversary")


def adversarial_ramp(share: float, warmup: float, ramp: float) -> float:
    """The factor of the model's adversarial loss, in [0, 1], from shares of the run: 0 before the ramp, then linear."""
    if share < warmup:
        return 0.0
    return min(1.0, (share - warmup) / ramp) if ramp else 1.0


class Windows(NamedTuple):
    """N windows of k consecutive frames of the data, and their reconstructions."""

    real: Float[Tensor, "N k 3 H W"]
    """x in [0, 1]."""
    fake: Float[Tensor, "N k 3 H W"]
    """x̂, not clipped."""
    valid: Bool[Tensor, "N k"]
    """False on padding. A window with any is not judged, nor are its other frames."""

    @property
    def whole(self) -> Bool[Tensor, "N 1"]:
        """Whether none of a window's frames is padding."""
        return self.valid.all(dim=1, keepdim=True)

    @property
    def frames_judged(self) -> Bool[Tensor, "N k"]:
        """The frames of windows without padding."""
        return self.whole.expand_as(self.valid)


@dataclass(eq=False)
class JudgedWindows:
    """Windows and the discriminators' outputs, with a gradient to the reconstructions alone."""

    windows: Windows
    real: Judged
    fake: Judged


def image_generator(given: JudgedWindows) -> Scalar:
    """-log D(x̂) in nats, summed over the patches of a frame."""
    return _generator_nats(given.fake.image, given.windows.frames_judged)


def temporal_generator(given: JudgedWindows) -> Scalar:
    """-log D(x̂) in nats, summed over the patches of a window."""
    return _generator_nats(given.fake.temporal, given.windows.whole)


def feature_matching(given: JudgedWindows) -> Scalar:
    """Mean absolute difference of the discriminators' features of x and x̂, averaged over their levels.

    Times the 3·H·W values of a frame; it does not depend on the number of channels.
    """
    distances = [
        *_feature_distances(given.real.image, given.fake.image, given.windows.frames_judged),
        *_feature_distances(given.real.temporal, given.fake.temporal, given.windows.whole),
    ]
    return given.windows.real[0, 0].numel() * torch.stack(distances).mean()


TERMS: Mapping[str, Callable[[JudgedWindows], Scalar]] = {
    "image_generator": image_generator,
    "temporal_generator": temporal_generator,
    "feature_matching": feature_matching,
}
"""The terms by the names of `AdversarialWeights`, each summed over a whole picture as the reconstruction is."""


def adversarial_loss(discriminators: Discriminators, windows: Windows, weights: AdversarialWeights) -> TaskLoss:
    """The model's loss: -E log D(x̂) and feature matching, without the ramp.

    Only the reconstructions get a gradient; weights and spectral norms of the discriminators do not change, in
    training or eval mode. Against blurred frames of 34 dB, a discriminator that is right in 9 patches of 10 gives the
    first two terms 0.03 times the reconstruction's gradient (norm at the frames), the third 0.4 times, at any size of
    frames.

    References: Goodfellow et al. 2014, arXiv 1406.2661, section 3 (the non-saturating loss); Wang et al. 2018
    (pix2pixHD), arXiv 1711.11585, equation 4 (feature matching; here averaged over levels, not summed).
    """
    with torch.no_grad():
        real = frozen_judgement(discriminators, windows.real)
    judged = JudgedWindows(windows, real, frozen_judgement(discriminators, windows.fake))
    return weigh("adversarial", TERMS, judged, weights)


def discriminator_loss(discriminators: Discriminators, windows: Windows) -> TaskLoss:
    """The discriminators' loss, -E log D(x) - E log(1 - D(x̂)) per patch in nats, without gradient to reconstructions.

    `image` is that of single frames, `temporal` that of windows; 2 log 2 = 1.39 is chance. The other terms, for the
    log, are the mean probabilities D(x) and D(x̂). Real and fake windows pass together, in training mode, so that a loss
    moves the power iteration of the spectral norms by one step.

    Reference: Goodfellow et al. 2014, arXiv 1406.2661, equation 1.
    """
    judged = discriminators(torch.cat([windows.real, windows.fake.detach()]))
    losses, logged = {}, {}
    kinds = (("image", judged.image, windows.frames_judged), ("temporal", judged.temporal, windows.whole))
    for name, judgement, counted in kinds:
        real, fake = judgement.logits.float().chunk(2)
        losses[name] = _mean(F.softplus(-real), counted) + _mean(F.softplus(fake), counted)
        logged[f"{name}_real"] = _mean(real.detach().sigmoid(), counted)
        logged[f"{name}_fake"] = _mean(fake.detach().sigmoid(), counted)
    return TaskLoss("discriminator", losses | logged, losses["image"] + losses["temporal"])


class WindowStarts(NamedTuple):
    """Where N windows of k frames lie in B clips of T."""

    clips: Int[Tensor, "N 1"]
    times: Int[Tensor, "N k"]

    def of(self, values: Shaped[Tensor, "B T *rest"]) -> Shaped[Tensor, "N k *rest"]:
        """The values in the windows."""
        return values[self.clips, self.times]


def draw_window_starts(valid: Bool[Tensor, "B T"], frames: int, window: int) -> WindowStarts:
    """Random different windows of the clips that hold `frames` frames together, or all if there are fewer.

    Windows with padding are drawn only where too few have none: to count these would wait for the device.

    Raises:
        AimeError: if T is below the window.
    """
    length = valid.shape[1]
    possible = length - window + 1
    if possible < 1:
        raise AimeError(
            f"clips are {length} frames long; expected {window} or more, the window of the temporal discriminator: "
            "take longer clips"
        )
    whole = valid.unfold(1, window, 1).all(-1).flatten()
    drawn = draw_valid_first(whole, frames // window)
    return WindowStarts(
        (drawn // possible)[:, None], (drawn % possible)[:, None] + torch.arange(window, device=valid.device)
    )


def frozen_judgement(discriminators: Discriminators, frames: Float[Tensor, "B T 3 H W"]) -> Judged:
    """The discriminators' outputs with a gradient to the frames alone, in eval mode.

    In training mode each call would move the power iteration of the spectral norms, and the data and their
    reconstructions would be judged by different weights.
    """
    training = discriminators.training
    discriminators.eval()
    try:
        with frozen(discriminators):
            return discriminators(frames)
    finally:
        discriminators.train(training)


def _mean(values: Float[Tensor, "N ..."], valid: Bool[Tensor, "M k"]) -> Float[Tensor, ""]:
    """Mean over N = M·k pictures that are not padding, and over all that belongs to one picture."""
    return masked_mean(rearrange(values.flatten(1).mean(dim=1), "(m k) -> m k", k=valid.shape[1]), valid)


def _generator_nats(fake: Judgement, valid: Bool[Tensor, "M k"]) -> Float[Tensor, ""]:
    """-log D(x̂), summed over patches: softplus, which stays exact where D(x̂) rounds to 0."""
    return fake.logits[0].numel() * _mean(F.softplus(-fake.logits.float()), valid)


def _feature_distances(real: Judgement, fake: Judgement, valid: Bool[Tensor, "M k"]) -> list[Float[Tensor, ""]]:
    pairs = zip(real.features, fake.features, strict=True)
    return [_mean((theirs.float() - ours.float()).abs(), valid) for theirs, ours in pairs]
