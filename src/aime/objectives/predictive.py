"""The predictive task: prediction of attention, contexts and actions, and overshooting.

The terms that need no frame teach the dynamics alone, from latents and contexts without gradient: those of the batch
and those of replayed clips, many more than one step can perceive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.attention.maps import centre_of_mass
from aime.attention.schema import Attention
from aime.objectives import latents
from aime.objectives.ledger import Scalar, frame_nats
from aime.objectives.passes import Pass
from aime.primitives.draws import draw_valid_first
from aime.primitives.frozen import frozen
from aime.primitives.masked_mean import masked_mean


def attention_dynamics(given: Pass) -> Scalar | None:
    """See `motion_error`; None where attention is uniform."""
    return motion_error(given.output.attention, given.valid) if given.model.attention.attends else None


def slot_overlap(given: Pass) -> Scalar | None:
    """See `overlap_of`; None where attention is uniform."""
    if not given.model.attention.attends:
        return None
    return masked_mean(overlap_of(given.output.attention.slot_maps), given.valid)


def slot_reconstruction(given: Pass) -> Scalar | None:
    """Half the squared error of a frame's features reconstructed from the slots."""
    return masked_mean(given.output.attention.slot_error, given.valid) if given.model.attention.attends else None


def overshoot_frames(given: Pass) -> Scalar:
    """-log p(x) of a few frames imagined from the batch's own clips, which come first among the paths.

    The maps they are decoded with are imagined as well, from the bottom-up map of the frame that the path starts at.
    The decoder gets no gradient: wrong latents would teach it to ignore the latent and draw the mean.
    """
    model, frames, overshot = given.model, given.frames, given.remembered.overshot
    maps = given.output.attention.bottom_up
    own = frames.shape[0] * overshot.starts.shape[0]
    with torch.no_grad():
        rolled = model.attention.roll(
            overshot.beliefs[:own], overshot.latents[:own], maps[:, overshot.starts].flatten(0, 1)
        )
    real = overshot.valid[:own].flatten()
    picked = draw_valid_first(real, given.overshoot.frames)
    with frozen(model.decoder):
        decoded = model.draw(overshot.latents[:own].flatten(0, 1)[picked], rolled.flatten(0, 1)[picked])
    truth = frames.flatten(0, 1)[overshot.times.flatten()[picked]]
    squared_error = (decoded - truth).square().mean(dim=(1, 2, 3))
    return frame_nats(squared_error, real[picked], truth[0].numel())


TERMS: Mapping[str, Callable[[Pass], Scalar | None]] = {
    "attention_dynamics": attention_dynamics,
    "slot_overlap": slot_overlap,
    "slot_reconstruction": slot_reconstruction,
    **latents.of(lambda given: given.remembered, latents.ONE_STEP_TERMS),
    **latents.of(lambda given: given.remembered, {"overshoot_latent": latents.overshoot_latent}),
    "overshoot_frames": overshoot_frames,
}
"""The terms by the names of `PredictiveWeights`."""


def motion_error(attention: Attention, valid: Bool[Tensor, "B T"]) -> Scalar:
    """Half the squared error, in cells, of the motion predicted from frame to frame, a mean over pairs of frames.

    The target is m(U_t) - m(U_{t-1}), m the centre of mass, without gradient; a clip's first frame has none.
    """
    centres = centre_of_mass(attention.bottom_up.detach())
    squared = 0.5 * (attention.motion[:, 1:] - centres.diff(dim=1)).square().sum(-1)
    return masked_mean(squared, valid[:, 1:] & valid[:, :-1])


def overlap_of(maps: Float[Tensor, "B T S h w"]) -> Float[Tensor, "B T"]:
    """Σ_{s<r} Σ_cells m_s m_r of maps that sum to 1 over the slots: in [0, cells·(S-1)/(2S)], so low is diverse."""
    squares = maps.square().sum(dim=(2, 3, 4))
    return 0.5 * (maps.sum(2).square().sum(dim=(2, 3)) - squares)
