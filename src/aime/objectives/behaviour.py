"""Terms about what comes beside the frames: rewards, ends and states on arrival, and the actions themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aime.dynamics.heads.state import StateHead
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Track
from aime.objectives.ledger import unless_off
from aime.objectives.weights import ElboWeights, PredictiveWeights
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.masked_mean import masked_mean
from aime.world_model.outputs import Targets

Terms = dict[str, Float[Tensor, ""] | None]
"""By name, in nats per frame; None where switched off."""


def arrival_terms(dynamics: LatentDynamics, track: Callable[[], Track], targets: Targets, wanted: ElboWeights) -> Terms:
    """`reward`, `continuation`, `state_nll`: minus the log probabilities of what came with each frame."""
    control, head, state = dynamics.control, dynamics.state_head, None
    if head is not None:
        state = unless_off(wanted.state_nll, lambda: state_nats(head, track(), targets))
    if control is None:
        return {"reward": None, "continuation": None, "state_nll": state}

    def reward() -> Tensor:
        log_prob = control.reward(*track().read).log_prob(targets.rewards)
        return masked_mean(-log_prob, targets.reward_valid)

    def continuation() -> Tensor:
        logits = control.continuation(*track().read)
        goes_on = (~targets.terminated).to(logits.dtype)
        nats = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
        return masked_mean(nats, targets.valid)

    return {
        "reward": unless_off(wanted.reward, reward),
        "continuation": unless_off(wanted.continuation, continuation),
        "state_nll": state,
    }


def state_nats(head: StateHead, track: Track, targets: Targets) -> Float[Tensor, ""]:
    """-log p(s_t | h_{t-1}, z_t) in nats per frame of which any number is known, summed over those that are.

    The gradient of each number is that of its nats times its standard deviation: else the one that is predicted best,
    whose gradient goes with 1/std², has the head for itself. Reference: Seitzer et al. 2022, "On the pitfalls of
    heteroscedastic uncertainty estimation", arXiv 2203.09168, equation 5 with β = 1/2.
    """
    standardised = head.scale(targets.states)
    known = standardised.isfinite()
    # each number by itself, as a vector of one
    each = DiagonalGaussian(*(field[..., None] for field in head(*track.read)))
    nats = -each.log_prob(torch.where(known, standardised, 0.0)[..., None])
    teaching = nats * each.std[..., 0].detach()
    nats = nats.detach() + teaching - teaching.detach()
    return masked_mean((nats * known).sum(-1), targets.valid & known.any(-1))


def action_terms(
    dynamics: LatentDynamics, track: Callable[[], Track], targets: Targets, wanted: PredictiveWeights
) -> Terms:
    """`action` and `inverse_dynamics`: minus the log densities of the actions, before and after their effect.

    The belief learns nothing from them: to predict what a policy does, which may be noise, it would learn actions by
    heart, and follow the world worse.
    """
    control = dynamics.control
    if control is None:
        return {"action": None, "inverse_dynamics": None}

    def action() -> Tensor:
        belief, latent, step = track().read
        log_prob = control.action_schema(belief.detach(), latent, step).log_prob(track().actions.detach())
        return masked_mean(-log_prob, targets.action_valid)

    def inverse_dynamics() -> Tensor:
        beliefs, latents, actions = track().beliefs.detach(), track().latents, track().actions.detach()
        done = control.action_schema.inverse(beliefs[:, :-1], latents[:, :-1], latents[:, 1:])
        arrived = targets.action_valid[:, :-1] & targets.valid[:, 1:]
        return masked_mean(-done.log_prob(actions[:, :-1]), arrived)

    return {
        "action": unless_off(wanted.action, action),
        "inverse_dynamics": unless_off(wanted.inverse_dynamics, inverse_dynamics),
    }
