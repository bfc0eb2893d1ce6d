"""The predictive task: attention and contexts expected, and overshooting, which trains imagination on its own paths."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from aime.attention.maps import centre_of_mass
from aime.attention.schema import Attention
from aime.dynamics.choices import Choice
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Track
from aime.objectives.behaviour import action_terms, arrival_terms
from aime.objectives.elbo import ElboTerms, mixture_terms
from aime.objectives.ledger import TaskLoss, gaussian_nats, unless_off, weigh
from aime.objectives.weights import LossWeights, OvershootConfig, PredictiveWeights
from aime.primitives.distributions import GaussianMixture
from aime.primitives.draws import draw_counted_first
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput, Targets


class PredictiveTerms(NamedTuple):
    """Scalars, per frame: of the batch where they are about attention, else of its clips and the replayed ones.

    In the latter no latent or context of a clip has a gradient. None where switched off, by a weight of 0 or with the
    part that a term is about: uniform attention has no maps to predict, and without a Perceiver there is no context.
    """

    attention_dynamics: Float[Tensor, ""] | None
    """Half the squared distance, in cells, of the predicted from the actual motion of U's centre of mass in a step."""
    slot_overlap: Float[Tensor, ""] | None
    """Sum over pairs of slots and over cells of the product of their maps: 0 where each cell has one slot."""
    slot_reconstruction: Float[Tensor, ""] | None
    """Half the squared distance of a frame's features from what the slots make of them."""

    expected_context: Float[Tensor, ""] | None
    """Half the squared distance of the context that h_{t-1} expects from c_t."""
    implied_context: Float[Tensor, ""] | None
    """Half the squared distance of the context that (h_{t-1}, z_t) implies from c_t."""
    one_step_latent: Float[Tensor, ""] | None
    """-log p(z) under the prior one step ahead, in nats."""
    action: Float[Tensor, ""] | None
    """-log p(a_t | h_{t-1}, z_t) where an action is known, in nats; None where control is switched off."""
    inverse_dynamics: Float[Tensor, ""] | None
    """-log p(a_t | h_{t-1}, z_t, z_{t+1}), in nats."""
    overshoot_latent: Float[Tensor, ""] | None
    """-log p(z) under priors imagined up to `steps` frames ahead, in nats."""
    overshoot_frames: Float[Tensor, ""] | None
    """-log p(x) of frames decoded from imagined latents, in nats."""


class Overshot(NamedTuple):
    """Imagined paths of N starts over K steps, and what really came."""

    beliefs: Float[Tensor, "N K belief"]
    latents: Float[Tensor, "N K latent"]
    priors: GaussianMixture
    """Of each latent, before it was chosen: `[N,K,components]` and `[N,K,components,latent]`."""
    targets: Float[Tensor, "N K latent"]
    """The posterior's latents, without gradient."""
    starts: Int[Tensor, " S"]
    """Index of the frame that each path of a clip starts from; N = B·S, clip by clip."""
    times: Int[Tensor, "N K"]
    """Index of the frame that each step should show, into the B·T frames of the clips."""
    valid: Bool[Tensor, "N K"]


def predictive_loss(
    model: AIME,
    output: SequenceOutput,
    frames: Float[Tensor, "B T 3 H W"],
    targets: Targets,
    weights: LossWeights,
    overshoot: OvershootConfig,
    replayed: LatentClips | None = None,
) -> TaskLoss:
    """Context expectation, and K-step overshooting (Hafner et al. 2019, PlaNet, arXiv 1811.04551, equation 7).

    It teaches the belief and the prior, from latents without gradient: those of the batch and those of `replayed`
    clips, many more than one step can perceive. A batch's own clips are few and their frames much alike.
    """
    wanted, attention, valid = weights.predictive, output.attention, targets.valid
    attends = model.attention.attends
    clips = output.clips(targets) if replayed is None else output.clips(targets).join(replayed)
    paths = _Paths(model.dynamics, clips, overshoot)
    terms = PredictiveTerms(
        attention_dynamics=unless_off(
            attends * wanted.attention_dynamics, lambda: attention_dynamics(attention, valid)
        ),
        slot_overlap=unless_off(
            attends * wanted.slot_overlap, lambda: masked_mean(slot_overlap(attention.slot_maps), valid)
        ),
        slot_reconstruction=unless_off(
            attends * wanted.slot_reconstruction, lambda: masked_mean(attention.slot_error, valid)
        ),
        **_one_step(paths, clips.targets, wanted),
        overshoot_latent=unless_off(wanted.overshoot_latent, lambda: paths.latent_nats),
        overshoot_frames=unless_off(
            wanted.overshoot_frames,
            lambda: _frame_nats(model, paths.overshot, frames, attention.bottom_up, overshoot.frames),
        ),
    )
    return weigh("predictive", terms, wanted)


def latent_losses(
    dynamics: LatentDynamics, clips: LatentClips, weights: LossWeights, elsewhere: Bool[Tensor, " B"] | None = None
) -> tuple[TaskLoss, TaskLoss]:
    """What the ELBO and the predictive task have to say, one step ahead, of clips whose frames are not at hand.

    That includes what the mixture's weights cost, with the weights of joint training: the likelihood of latents alone
    drives the sticks' divergence up without bound. For clips that are `elsewhere`, moved to another scene than the one
    they were recorded in, only the terms of the latents apply: the recorded targets are masked.
    """
    paths = _Paths(dynamics, clips)
    here = clips.targets if elsewhere is None else clips.targets.only(~elsewhere)
    arrival = ElboTerms(
        **dict.fromkeys(ElboTerms._fields)
        | mixture_terms(lambda: paths.track.prior, clips.valid, weights.elbo)
        | arrival_terms(dynamics, lambda: paths.track, here, weights.elbo)
    )
    ahead = PredictiveTerms(**dict.fromkeys(PredictiveTerms._fields) | _one_step(paths, here, weights.predictive))
    return weigh("elbo", arrival, weights.elbo), weigh("predictive", ahead, weights.predictive)


def _one_step(paths: _Paths, targets: Targets, wanted: PredictiveWeights) -> dict[str, Float[Tensor, ""] | None]:
    """Of all clips' latents, and of contexts and actions where the targets are not padding."""
    has_context = paths.dynamics.widths.context > 0
    return {
        **action_terms(paths.dynamics, lambda: paths.track, targets, wanted),
        "expected_context": unless_off(
            has_context * wanted.expected_context, lambda: paths.distance(paths.track.expected_contexts, targets.valid)
        ),
        "implied_context": unless_off(
            has_context * wanted.implied_context, lambda: paths.distance(paths.track.implied_contexts, targets.valid)
        ),
        "one_step_latent": unless_off(wanted.one_step_latent, lambda: paths.one_step_nats),
    }


class _Paths:
    """What the belief makes of clips, and imagines along them; each computed when a term first asks for it."""

    def __init__(self, dynamics: LatentDynamics, clips: LatentClips, overshoot: OvershootConfig | None = None) -> None:
        self.dynamics, self.clips, self.overshoot = dynamics, clips, overshoot or OvershootConfig()

    @cached_property
    def track(self) -> Track:
        return self.dynamics.scan(self.clips.latents, self.clips.contexts, self.clips.actions)

    @cached_property
    def overshot(self) -> Overshot:
        return imagine_ahead(self.dynamics, self.track, self.clips.valid, self.overshoot)

    def distance(self, guessed: Float[Tensor, "B T context"], where: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Half the squared distance of guessed contexts from the clips' own."""
        return masked_mean(0.5 * (guessed - self.clips.contexts).square().sum(-1), where)

    @property
    def one_step_nats(self) -> Float[Tensor, ""]:
        return masked_mean(-self.track.prior.mixture.log_prob(self.clips.latents), self.clips.valid)

    @property
    def latent_nats(self) -> Float[Tensor, ""]:
        return masked_mean(-self.overshot.priors.log_prob(self.overshot.targets), self.overshot.valid)


def imagine_ahead(
    dynamics: LatentDynamics, track: Track, valid: Bool[Tensor, "B T"], overshoot: OvershootConfig
) -> Overshot:
    """Imagine K steps from several starts of every clip at once.

    The path follows, at each step, the mean of the component most responsible for the posterior latent. Each step
    learns to go right from wherever the path has come; a gradient to the 15 steps before is mostly noise.
    """
    batch, length = valid.shape
    clips = torch.arange(batch, device=valid.device)[:, None, None]
    steps = min(overshoot.steps, length - 1)
    starts = _starts(length - steps, overshoot.starts, valid.device)
    ahead = starts[:, None] + torch.arange(1, steps + 1, device=valid.device)
    targets = rearrange(track.latents[:, ahead], "b s k d -> (b s) k d")
    carry = dynamics.states_at(track, starts).map(lambda each: each.flatten(0, 1))
    actions = rearrange(track.actions[:, ahead - 1], "b s k a -> (b s) k a")

    def most_responsible(mixture: GaussianMixture, number: int) -> Choice:
        component = mixture.responsibilities(targets[:, number]).argmax(-1)
        return Choice(mixture.pick(component).mean, component)

    taken = []
    for number in range(steps):
        carry, prior, choice = dynamics.step(carry, actions[:, number], most_responsible, number)
        taken.append((carry.belief, choice.latent, *prior.mixture))
        # the next step starts from here as from a given state: only the belief carries a gradient from step to step
        carry = carry._replace(latent=carry.latent.detach(), step=carry.step.detach(), context=carry.context.detach())
    beliefs, latents, *mixtures = (torch.stack(field, dim=1) for field in zip(*taken, strict=True))
    real = valid[:, starts, None] & valid[:, ahead]
    return Overshot(
        beliefs,
        latents,
        GaussianMixture(*mixtures),
        targets,
        starts,
        rearrange(clips * length + ahead, "b s k -> (b s) k"),
        rearrange(real, "b s k -> (b s) k"),
    )


def _starts(possible: int, wanted: int, device: torch.device) -> Tensor:
    count = min(possible, wanted)
    offset = torch.rand(1, device=device)
    return ((torch.arange(count, device=device) + offset) * possible / count).long()


def _frame_nats(
    model: AIME,
    overshot: Overshot,
    frames: Float[Tensor, "B T 3 H W"],
    maps: Float[Tensor, "B T h w"],
    count: int,
) -> Float[Tensor, ""]:
    """Of `count` frames imagined from the batch's own clips, whose true frames are known; they come first.

    The maps they are decoded with are imagined as well, from the bottom-up map of the frame that the path starts at.
    """
    own = frames.shape[0] * overshot.starts.shape[0]
    with torch.no_grad():
        rolled = model.attention.roll(
            overshot.beliefs[:own], overshot.latents[:own], maps[:, overshot.starts].flatten(0, 1)
        )
    real = overshot.valid[:own].flatten()
    picked = draw_counted_first(real, count)
    decoded = frozen_decode(model, overshot.latents[:own].flatten(0, 1)[picked], rolled.flatten(0, 1)[picked])
    truth = frames.flatten(0, 1)[overshot.times.flatten()[picked]]
    squared_error = (decoded - truth).square().mean(dim=(1, 2, 3))
    counted = real[picked]
    variance = masked_mean(squared_error, counted).detach().clamp_min(1e-6)
    return masked_mean(gaussian_nats(squared_error, variance, truth[0].numel()), counted)


def attention_dynamics(attention: Attention, valid: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Half the squared error, in cells, of the motion predicted from frame to frame, a mean over pairs of frames.

    The target is m(U_t) - m(U_{t-1}), m the centre of mass, without gradient; a clip's first frame has none.
    """
    centres = centre_of_mass(attention.bottom_up.detach())
    squared = 0.5 * (attention.motion[:, 1:] - centres.diff(dim=1)).square().sum(-1)
    return masked_mean(squared, valid[:, 1:] & valid[:, :-1])


def slot_overlap(maps: Float[Tensor, "B T S h w"]) -> Float[Tensor, "B T"]:
    """Σ_{s<r} Σ_cells m_s m_r of maps that sum to 1 over the slots: in [0, cells·(S-1)/(2S)], so low is diverse."""
    squares = maps.square().sum(dim=(2, 3, 4))
    return 0.5 * (maps.sum(2).square().sum(dim=(2, 3)) - squares)


def frozen_decode(
    model: AIME, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]
) -> Float[Tensor, "N 3 H W"]:
    """Decode with a gradient to the latents and maps, and none to the decoder's weights.

    What is imagined badly would otherwise teach the decoder to ignore the latent and draw the mean.
    """
    weights = {name: weight.detach() for name, weight in model.decoder.named_parameters()}
    return model.restore(torch.func.functional_call(model.decoder, weights, (latents, attention)))
