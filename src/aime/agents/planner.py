"""Planning: many action sequences dreamt at once, the good ones kept and varied, the first action taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from aime.agents.noise import EpisodeNoise
from aime.agents.policy import Critic
from aime.dynamics.choices import likeliest
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry, Dream
from aime.errors import AimeError, expect_at_least_zero, expect_positive, expect_shares_below_one
from aime.primitives.distributions import CensoredGaussian, CensoredMixture

Proposer = Callable[[Tensor, Tensor, Tensor], CensoredGaussian | CensoredMixture]
"""From belief, latent and its last step to what might be done: the action schema, or a policy."""


class Reach(NamedTuple):
    """How far a search goes from where it stands, and from what is usually done there; see `PlannerConfig`."""

    horizon: int
    proposed: float
    max_scale: float
    leash: float


BESIDE_A_CRITIC, ALONE = Reach(3, 0.5, 0.4, 1.0), Reach(12, 0.25, 0.8, 0.0)
"""A search that goes further than a few steps finds the model's errors; without a critic it must."""


@dataclass(frozen=True)
class PlannerConfig:
    """How a planner searches.

    Raises:
        AimeError: if a number is out of its range.
    """

    kind: Literal["mppi", "cem"] = "mppi"
    """mppi weighs the elite by their returns; cem counts them alike."""
    candidates: int = 512
    """Action sequences tried in each iteration."""
    horizon: int | None = None
    """Steps of each. By default 3 where a critic judges what comes after them, and 12 without one."""
    iterations: int = 3
    elite: int = 64
    """Sequences that the next iteration is drawn around."""
    proposed: float | None = None
    """Share of the candidates that the proposers act out, in the first iteration; they stay in the running. By default
    0.5 with a critic and 0.25 without."""
    temperature: float = 0.5
    """Of mppi, in standard deviations of the elite's returns: the lower, the more the best one counts."""
    min_scale: float = 0.1
    """Smallest standard deviation of the actions that are drawn."""
    max_scale: float | None = None
    """That of the first iteration. By default 0.4 with a critic and 0.8 without."""
    discount: float = 0.99
    leash: float | None = None
    """What a nat of -log p(action) under the first proposer costs, in the environment's units of reward; where nobody
    proposes, under the action schema. By default 1 with a critic and 0 without."""

    def __post_init__(self) -> None:
        expect_positive(self, "candidates", "horizon", "iterations", "elite", "temperature", "min_scale", "discount")
        expect_at_least_zero(self, "leash")
        if self.elite > self.candidates:
            raise AimeError(f"elite is {self.elite}; expected {self.candidates} or fewer, of as many candidates")
        expect_shares_below_one(self, "proposed", zero="proposes none")
        if self.max_scale is not None:
            self.reach(critic=False)

    def reach(self, critic: bool) -> Reach:
        """How far the search goes, with a critic or without one.

        Raises:
            AimeError: if it would have to begin narrower than `min_scale`.
        """
        usual = BESIDE_A_CRITIC if critic else ALONE
        given = {name: getattr(self, name) for name in Reach._fields}
        reach = usual._replace(**{name: value for name, value in given.items() if value is not None})
        if self.min_scale > reach.max_scale:
            raise AimeError(f"min_scale is {self.min_scale}; expected max_scale, {reach.max_scale}, or less")
        return reach


class Candidates(NamedTuple):
    """S action sequences for each of B worlds."""

    actions: Float[Tensor, "B S H A"]
    worth: Float[Tensor, "B S"]
    """Of each, in the environment's units of reward."""


class Plan(NamedTuple):
    """What B worlds' sequences are drawn from."""

    mean: Float[Tensor, "B H A"]
    scale: Float[Tensor, "B H A"]


class Planner:
    """The cross-entropy method, or MPPI, over a world model's dreams; a plan is carried on from step to step.

    A candidate is worth the rewards that the model expects along its most likely future, discounted, and what the
    critic expects from there, where there is one. Reference: Chua et al. 2018, arXiv 1805.12114 (CEM); Williams et al.
    2017, arXiv 1707.02342 (MPPI); proposals and the critic at the end: Hansen et al. 2022, arXiv 2203.04955.
    """

    def __init__(
        self,
        dynamics: LatentDynamics,
        config: PlannerConfig,
        critic: Critic | None = None,
        proposers: tuple[Proposer, ...] = (),
    ) -> None:
        """A planner without a plan.

        Args:
            dynamics: with reward heads, in eval mode.
            config: how to search.
            critic: what lies beyond the horizon; without one, nothing does.
            proposers: share the proposed candidates among them.

        Raises:
            AimeError: if the model has no reward head, or one that never saw a reward.
        """
        self._control = dynamics.expect_rewards()
        self.dynamics, self.config, self.critic, self.proposers = dynamics, config, critic, proposers
        self.reach = config.reach(critic is not None)
        self._habit = proposers[0] if proposers else self._control.action_schema
        self._plan: Plan | None = None
        self._chance: EpisodeNoise | None = None

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Forget the plan; what is drawn for an episode follows from its seed."""
        self._plan, self._chance = None, EpisodeNoise(batch, seeds)

    @torch.inference_mode()
    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """The first action of the plan that the search ends with."""
        batch = state.latent.shape[0]
        if self._chance is None or self._chance.batch != batch:
            self._chance = EpisodeNoise(batch)
        plan = self._carried_on(batch, state.latent)
        # what is proposed is dreamt and judged once, and stays in the running
        proposals = self._propose(state, self._chance)
        for _ in range(self.config.iterations):
            drawn = self._draw(plan, self._chance, self.config.candidates - proposals.actions.shape[1])
            judged = proposals.actions, drawn
            worth = proposals.worth, self.evaluate(state, drawn)
            plan = self._improve(Candidates(torch.cat(judged, dim=1), torch.cat(worth, dim=1)))
        self._plan = plan
        return plan.mean[:, 0]

    def evaluate(self, state: Carry, candidates: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        """What each of S action sequences is worth, in the environment's units of reward."""
        count = candidates.shape[1]
        start = state.repeated(count)
        actions = rearrange(candidates, "b s h a -> (b s) h a")
        dream = self.dynamics.rollout(start, actions, likeliest)
        return self._worth(start, dream).unflatten(0, (-1, count))

    def _worth(self, start: Carry, dream: Dream) -> Float[Tensor, " N"]:
        """Of N dreams from as many states: the expected rewards, and what the critic expects at their ends."""
        arrived = dream.read
        goes_on = self.config.discount * self._control.continuation(*arrived).sigmoid()
        reached = torch.cat([torch.ones_like(goes_on[:, :1]), goes_on.cumprod(1)], dim=1)
        rewards = self._control.reward(*arrived).mean
        if self.reach.leash:
            pairs = zip(start.read, arrived, strict=True)
            left = (torch.cat([first[:, None], after[:, :-1]], dim=1) for first, after in pairs)
            rewards = rewards + self.reach.leash * self._habit(*left).log_prob(dream.actions)
        worth = (reached[:, :-1] * rewards).sum(1)
        if self.critic is not None:
            worth = worth + reached[:, -1] * self.critic(*(field[:, -1] for field in arrived)).mean
        return worth

    def _carried_on(self, batch: int, like: Tensor) -> Plan:
        """The last plan, a step on; as wide as at first."""
        shape = (batch, self.reach.horizon, self.dynamics.widths.action)
        scale = like.new_full(shape, self.reach.max_scale)
        if self._plan is None:
            return Plan(like.new_zeros(shape), scale)
        return Plan(torch.cat([self._plan.mean[:, 1:], like.new_zeros(batch, 1, shape[2])], dim=1), scale)

    def _draw(self, plan: Plan, chance: EpisodeNoise, count: int) -> Float[Tensor, "B S H A"]:
        """Around the plan, which is one of them itself."""
        mean = repeat(plan.mean, "b h a -> b s h a", s=count)
        noise = chance.normals(mean[0].numel(), mean).view_as(mean) * plan.scale[:, None]
        noise[:, 0] = 0
        return (mean + noise).clamp(-1, 1)

    def _propose(self, state: Carry, chance: EpisodeNoise) -> Candidates:
        """What the proposers would do, acted out in dreams of their own."""
        batch = state.latent.shape[0]
        each = round(self.reach.proposed * self.config.candidates) // max(1, len(self.proposers))
        acted = [self._act_out(proposer, state, chance, each) for proposer in self.proposers if each]
        if not acted:
            nothing = state.latent.new_zeros(batch, 0, self.reach.horizon, self.dynamics.widths.action)
            return Candidates(nothing, nothing[:, :, 0, 0])
        return Candidates(*(torch.cat(field, dim=1) for field in zip(*acted, strict=True)))

    def _act_out(self, proposer: Proposer, state: Carry, chance: EpisodeNoise, count: int) -> Candidates:
        start = state.repeated(count)

        def act(now: Carry, number: int) -> Tensor:
            distribution = proposer(*now.read)
            noise = chance.uniforms(count * distribution.noise_width, now.latent)
            return distribution.drawn_from(rearrange(noise, "b (s w) -> (b s) w", s=count))

        dream = self.dynamics.behave(start, act, self.reach.horizon, likeliest)
        actions = rearrange(dream.actions, "(b s) h a -> b s h a", s=count)
        return Candidates(actions, self._worth(start, dream).unflatten(0, (-1, count)))

    def _improve(self, candidates: Candidates) -> Plan:
        """Mean and spread of the elite."""
        best = candidates.worth.nan_to_num(-torch.inf).topk(self.config.elite, dim=1)
        index = repeat(best.indices, "b e -> b e h a", h=candidates.actions.shape[2], a=candidates.actions.shape[3])
        elite = candidates.actions.gather(1, index)
        weights = self._weights(best.values)[..., None, None]
        mean = (weights * elite).sum(1)
        variance = (weights * (elite - mean[:, None]).square()).sum(1)
        return Plan(mean, variance.sqrt().clamp(self.config.min_scale, self.reach.max_scale))

    def _weights(self, worth: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        if self.config.kind == "cem":
            return torch.full_like(worth, 1 / worth.shape[1])
        spread = worth.std(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.softmax((worth - worth[:, :1]) / (self.config.temperature * spread), dim=1)
