"""Terms that need no frames: reward, end, state, mixture weights, actions, contexts and predicted latents.

A term is a scalar in nats per frame, or None where the model lacks the part that it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aime.objectives.ledger import Scalar
from aime.objectives.passes import LatentPass, Pass
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.masked_mean import masked_mean
from aime.representation.divergences import hierarchical_kl, weights_entropy

Terms = Mapping[str, Callable[[LatentPass], Scalar | None]]


def kl_hierarchical(given: LatentPass) -> Scalar | None:
    """What the mixture's weights cost: KL of sticks and concentration; None where the prior has one component."""
    prior = given.track.prior
    if prior.mixture.log_weights.shape[-1] == 1:
        return None
    return masked_mean(hierarchical_kl(prior.sticks, prior.concentration), given.valid)


def entropy(given: LatentPass) -> Scalar | None:
    """Minus the entropy of the mixture weights averaged over the frames, in [-log K, 0]; None where K is 1."""
    log_weights = given.track.prior.mixture.log_weights
    return None if log_weights.shape[-1] == 1 else -weights_entropy(log_weights, given.valid)


def reward(given: LatentPass) -> Scalar | None:
    """-log p(reward | h_{t-1}, z_t), the cross-entropy of its two bins, over the frames whose reward is known."""
    if (control := given.dynamics.control) is None:
        return None
    log_prob = control.reward(*given.track.read).log_prob(given.targets.rewards)
    return masked_mean(-log_prob, given.targets.reward_valid)


def continuation(given: LatentPass) -> Scalar | None:
    """-log p(ended or not | h_{t-1}, z_t)."""
    if (control := given.dynamics.control) is None:
        return None
    logits = control.continuation(*given.track.read)
    goes_on = (~given.targets.terminated).to(logits.dtype)
    nats = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
    return masked_mean(nats, given.targets.valid)


def state_nll(given: LatentPass) -> Scalar | None:
    """-log p(s_t | h_{t-1}, z_t) of the standardised state, over frames of which any number is known.

    The gradient of each number is that of its nats times its standard deviation: else the one that is predicted best,
    whose gradient goes with 1/std², has the head for itself. Reference: Seitzer et al. 2022, "On the pitfalls of
    heteroscedastic uncertainty estimation", arXiv 2203.09168, equation 5 with β = 1/2.
    """
    if (head := given.dynamics.state_head) is None:
        return None
    standardised = head.scale(given.targets.states)
    known = standardised.isfinite()
    # each number by itself, as a vector of one
    each = DiagonalGaussian(*(field[..., None] for field in head(*given.track.read)))
    nats = -each.log_prob(torch.where(known, standardised, 0.0)[..., None])
    teaching = nats * each.std[..., 0].detach()
    nats = nats.detach() + teaching - teaching.detach()
    return masked_mean((nats * known).sum(-1), given.targets.valid & known.any(-1))


def action(given: LatentPass) -> Scalar | None:
    """-log p(a_t | h_{t-1}, z_t) where an action is known.

    The belief learns nothing from it: to predict what a policy does, which may be noise, it would memorise actions and
    follow the world worse.
    """
    if (control := given.dynamics.control) is None:
        return None
    belief, latent, step = given.track.read
    log_prob = control.action_schema(belief.detach(), latent, step).log_prob(given.track.actions.detach())
    return masked_mean(-log_prob, given.targets.action_valid)


def inverse_dynamics(given: LatentPass) -> Scalar | None:
    """-log p(a_t | h_{t-1}, z_t, z_{t+1}); the belief learns nothing from it."""
    if (control := given.dynamics.control) is None:
        return None
    track, targets = given.track, given.targets
    beliefs, latents, actions = track.beliefs.detach(), track.latents, track.actions.detach()
    taken = control.action_schema.inverse(beliefs[:, :-1], latents[:, :-1], latents[:, 1:])
    arrived = targets.action_valid[:, :-1] & targets.valid[:, 1:]
    return masked_mean(-taken.log_prob(actions[:, :-1]), arrived)


def expected_context(given: LatentPass) -> Scalar | None:
    """Half the squared distance of the context that h_{t-1} expects from c_t; None without a context."""
    return _distance(given, given.track.expected_contexts) if given.dynamics.widths.context else None


def implied_context(given: LatentPass) -> Scalar | None:
    """Half the squared distance of the context that (h_{t-1}, z_t) implies from c_t; None without a context."""
    return _distance(given, given.track.implied_contexts) if given.dynamics.widths.context else None


def _distance(given: LatentPass, guessed: Float[Tensor, "B T context"]) -> Scalar:
    where: Bool[Tensor, "B T"] = given.targets.valid
    return masked_mean(0.5 * (guessed - given.clips.contexts).square().sum(-1), where)


def one_step_latent(given: LatentPass) -> Scalar:
    """-log p(z) under the prior one step ahead."""
    return masked_mean(-given.track.prior.mixture.log_prob(given.clips.latents), given.valid)


def overshoot_latent(given: LatentPass) -> Scalar:
    """-log p(z) under priors imagined up to `overshoot.steps` frames ahead."""
    return masked_mean(-given.overshot.priors.log_prob(given.overshot.targets), given.overshot.valid)


ELBO_TERMS: Terms = {
    "kl_hierarchical": kl_hierarchical,
    "entropy": entropy,
    "reward": reward,
    "continuation": continuation,
    "state_nll": state_nll,
}
"""Those of the ELBO."""

ONE_STEP_TERMS: Terms = {
    "action": action,
    "inverse_dynamics": inverse_dynamics,
    "expected_context": expected_context,
    "implied_context": implied_context,
    "one_step_latent": one_step_latent,
}
"""Those of the predictive task, one step ahead."""


def of(part: Callable[[Pass], LatentPass], terms: Terms) -> dict[str, Callable[[Pass], Scalar | None]]:
    """The same terms as functions of a whole pass, read from a part of it."""
    return {name: lambda given, term=term: term(part(given)) for name, term in terms.items()}  # type: ignore[misc]
