"""The adversarial task: reconstructions that two discriminators take for data, and what the discriminators learn."""

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
from aime.representation.discriminators import CHANNELS, LEVELS, WINDOW, Discriminators, Judgement
from aime.representation.discriminators import Judged as Judgements


@dataclass(frozen=True)
class AdversaryConfig:
    """The discriminators, when they learn, and when the model begins to listen to them.

    Raises:
        AimeError: if `vote` is not in [0, 1].
    """

    enabled: bool = True
    """Whether there is an adversarial task."""
    n_critic: ClassVar[int] = 2
    """Steps of the model for each step of the discriminators."""
    warmup: ClassVar[float] = 0.5
    """Share of the run, in [0, 1], before the model listens. The discriminators learn from the start: what one that
    knows nothing says is noise, and reconstructions break when it sets in at once."""
    ramp: ClassVar[float] = 0.25
    """Share of the run from not at all to the full weight."""
    vote: float = 0.03
    """The adversarial task's weight in [0, 1] in RGB's consensus, once the ramp is over. With a full one the
    likelihood's own gradient would be turned to what discriminators like; at 0 it has no say there, and its own
    gradient is added as it is. How much it counts is `weights.adversarial`."""
    frames: ClassVar[int] = 32
    """Frames of a batch that are judged in a step, in random windows of consecutive frames."""
    learning_rate: ClassVar[float] = 4e-4
    """Of the discriminators' own Adam."""
    betas: ClassVar[tuple[float, float]] = (0.5, 0.9)
    discriminators: ClassVar[Removed] = Removed({"channels": CHANNELS, "levels": LEVELS, "window": WINDOW})

    def __post_init__(self) -> None:
        expect_shares(self, "vote", of="adversary")


def adversarial_ramp(share: float, warmup: float, ramp: float) -> float:
    """The factor of the model's adversarial loss, in [0, 1]: 0 during the warm-up, then linear to 1 within the ramp.

    A pure function of the share of the run that is done, in [0, 1], as the other two are shares of it.
    """
    if share < warmup:
        return 0.0
    return min(1.0, (share - warmup) / ramp) if ramp else 1.0


class Windows(NamedTuple):
    """N stretches of k consecutive frames, out of data and reconstructions at the same places."""

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
class Judged:
    """Windows, and what the discriminators say of them with a gradient to the reconstructions alone."""

    windows: Windows
    real: Judgements
    fake: Judgements


def image_generator(given: Judged) -> Scalar:
    """-log D(x̂) in nats, summed over the patches of a frame."""
    return _nats_of_reality(given.fake.image, given.windows.frames_judged)


def temporal_generator(given: Judged) -> Scalar:
    """-log D(x̂) in nats, summed over the patches of a window."""
    return _nats_of_reality(given.fake.temporal, given.windows.whole)


def feature_matching(given: Judged) -> Scalar:
    """Mean absolute difference of the discriminators' features of x and x̂, averaged over their levels.

    Times the 3·H·W values of a frame; it does not depend on the number of channels.
    """
    distances = [
        *_feature_distances(given.real.image, given.fake.image, given.windows.frames_judged),
        *_feature_distances(given.real.temporal, given.fake.temporal, given.windows.whole),
    ]
    return given.windows.real[0, 0].numel() * torch.stack(distances).mean()


TERMS: Mapping[str, Callable[[Judged], Scalar]] = {
    "image_generator": image_generator,
    "temporal_generator": temporal_generator,
    "feature_matching": feature_matching,
}
"""The terms by the names of `AdversarialWeights`, each summed over a whole picture as the reconstruction is."""


def adversarial_loss(discriminators: Discriminators, windows: Windows, weights: AdversarialWeights) -> TaskLoss:
    """The model's side: -E log D(x̂), whose gradient stays where D is sure, and features like those of the data.

    Only the reconstructions have a gradient. The discriminators' weights and the state of their spectral norms stay as
    they are. The ramp is left to the caller, who may balance the task's gradient against others'.

    How the terms compare with the reconstruction, in the norm of the gradient to the frames: a discriminator that told
    blurred frames of 34 dB from cartpole's own in 9 patches of 10 pulled 0.03 times as hard through each of the first
    two terms as the likelihood did, and 0.4 times as hard through the third. One that knows nothing pulls a hundredth
    of that through the first two, in a random direction. The proportion does not change with the size of frames.

    Args:
        discriminators: in training or eval mode, which makes no difference here.
        windows: as long as the temporal discriminator's.
        weights: of the terms.

    References: Goodfellow et al. 2014, arXiv 1406.2661, section 3 (the non-saturating loss); Wang et al. 2018
    (pix2pixHD), arXiv 1711.11585, equation 4 (feature matching; here averaged over levels, not summed).
    """
    with torch.no_grad():
        real = frozen_judgement(discriminators, windows.real)
    judged = Judged(windows, real, frozen_judgement(discriminators, windows.fake))
    return weigh("adversarial", TERMS, judged, weights)


def discriminator_loss(discriminators: Discriminators, windows: Windows) -> TaskLoss:
    """The discriminators' side: L_D = -E log D(x) - E log(1 - D(x̂)) per patch, with no gradient to reconstructions.

    `image` is that of single frames, in nats, 2 log 2 = 1.39 where it cannot tell, and `temporal` that of windows. The
    other terms are for the log: mean probabilities D(x) and D(x̂). A discriminator learns too fast for the model where
    `image_fake` is near 0 and `image_real` near 1. Real and fake windows pass together, so that a loss moves the power
    iteration of the spectral norms by one step.

    Args:
        discriminators: in training mode.
        windows: as long as the temporal discriminator's.

    Reference: Goodfellow et al. 2014, arXiv 1406.2661, equation 1.
    """
    judged = discriminators(torch.cat([windows.real, windows.fake.detach()]))
    losses, told = {}, {}
    kinds = (("image", judged.image, windows.frames_judged), ("temporal", judged.temporal, windows.whole))
    for name, judgement, counted in kinds:
        real, fake = judgement.logits.float().chunk(2)
        losses[name] = _mean(F.softplus(-real), counted) + _mean(F.softplus(fake), counted)
        told[f"{name}_real"] = _mean(real.detach().sigmoid(), counted)
        told[f"{name}_fake"] = _mean(fake.detach().sigmoid(), counted)
    return TaskLoss("discriminator", losses | told, losses["image"] + losses["temporal"])


class WindowStarts(NamedTuple):
    """Where N windows of k frames lie in B clips of T."""

    clips: Int[Tensor, "N 1"]
    times: Int[Tensor, "N k"]

    def of(self, values: Shaped[Tensor, "B T *rest"]) -> Shaped[Tensor, "N k *rest"]:
        """What is there."""
        return values[self.clips, self.times]


def draw_window_starts(valid: Bool[Tensor, "B T"], frames: int, window: int) -> WindowStarts:
    """As many different windows of the clips as hold `frames` frames, or all if there are fewer.

    Drawn from torch's random generator, all windows without padding alike; with padding only where these are too few,
    since to count them would mean to wait for the device.

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


def frozen_judgement(discriminators: Discriminators, frames: Float[Tensor, "B T 3 H W"]) -> Judgements:
    """Judge with a gradient to the frames and none to the discriminators, whose state does not change.

    In eval mode, since each call in training mode would move the spectral norms' power iteration, and two pictures
    that are compared would meet two different discriminators.
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


def _nats_of_reality(fake: Judgement, valid: Bool[Tensor, "M k"]) -> Float[Tensor, ""]:
    """-log D(x̂), summed over patches: softplus, which stays exact where D(x̂) rounds to 0."""
    return fake.logits[0].numel() * _mean(F.softplus(-fake.logits.float()), valid)


def _feature_distances(real: Judgement, fake: Judgement, valid: Bool[Tensor, "M k"]) -> list[Float[Tensor, ""]]:
    pairs = zip(real.features, fake.features, strict=True)
    return [_mean((theirs.float() - ours.float()).abs(), valid) for theirs, ours in pairs]
