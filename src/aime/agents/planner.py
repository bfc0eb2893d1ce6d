"""Planning: many action sequences are imagined, the best ones are varied, and the first action is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from aime.agents.policy import Behaviour, Critic
from aime.dynamics.choices import likeliest
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry, Dream
from aime.errors import AimeError, expect_at_least_zero, expect_positive, expect_shares_below_one
from aime.primitives.episode_noise import EpisodeNoise

Candidates = Float[Tensor, "B S H A"]
"""S action sequences of H steps for each of B episodes."""
Plan = Float[Tensor, "B H A"]


class Limits(NamedTuple):
    """The settings of `PlannerConfig` that depend on whether there is a critic."""

    horizon: int
    proposed: float
    max_scale: float
    leash: float


WITH_CRITIC, WITHOUT_CRITIC = Limits(3, 0.5, 0.4, 1.0), Limits(12, 0.25, 0.8, 0.0)
"""Beyond a few steps a search exploits the model's errors; without a critic it has to look further."""


@dataclass(frozen=True)
class PlannerConfig:
    """How a planner searches."""

    kind: Literal["mppi", "cem"] = "mppi"
    """mppi weights the elite by returns; cem weights them equally."""
    candidates: int = 512
    """Action sequences per iteration."""
    horizon: int | None = None
    """Steps of each sequence. By default 3 with a critic, which estimates the later return, and 12 without."""
    iterations: int = 3
    """Iterations per step of the environment."""
    elite: int = 64
    """Number of best sequences, around which the next iteration samples."""
    proposed: float | None = None
    """Share of the candidates from the proposal policies. By default 0.5 with a critic and 0.25 without."""
    temperature: float = 0.5
    """Of mppi, in standard deviations of the elite's returns; lower values favour the best sequence."""
    min_scale: float = 0.1
    """Minimum standard deviation of sampled actions."""
    max_scale: float | None = None
    """Standard deviation in the first iteration. By default 0.4 with a critic and 0.8 without."""
    discount: float = 0.99
    """Discount factor γ of rewards per step."""
    leash: float | None = None
    """Penalty per nat of -log p(action) under the first proposal policy, in units of reward.
    By default 1 with a critic and 0 without."""

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        expect_positive(self, "candidates", "horizon", "iterations", "elite", "temperature", "min_scale", "discount")
        expect_at_least_zero(self, "leash")
        if self.elite > self.candidates:
            raise AimeError(f"elite is {self.elite}; expected {self.candidates} or fewer, of as many candidates")
        expect_shares_below_one(self, "proposed", zero="proposes none")
        if self.max_scale is not None:
            self.limits(critic=False)

    def limits(self, critic: bool) -> Limits:
        """The settings with or without a critic.

        Raises:
            AimeError: if the first iteration would be narrower than `min_scale`.
        """
        given = {name: getattr(self, name) for name in Limits._fields if getattr(self, name) is not None}
        chosen = (WITH_CRITIC if critic else WITHOUT_CRITIC)._replace(**given)
        if self.min_scale > chosen.max_scale:
            raise AimeError(f"min_scale is {self.min_scale}; expected max_scale, {chosen.max_scale}, or less")
        return chosen


class Planner:
    """The cross-entropy method, or MPPI, in imagination; each plan starts from the one of the step before.

    The value of a candidate is the sum of the rewards that the model expects along its likeliest future, discounted,
    and of the critic's value at its end. Reference: Chua et al. 2018, arXiv 1805.12114 (CEM); Williams et al. 2017,
    arXiv 1707.02342 (MPPI); proposals and the critic at the end: Hansen et al. 2022, arXiv 2203.04955.
    """

    def __init__(
        self,
        dynamics: LatentDynamics,
        config: PlannerConfig,
        critic: Critic | None = None,
        proposers: Sequence[Behaviour] = (),
    ) -> None:
        """A planner for dynamics in eval mode; the proposers share the proposed candidates equally.

        Raises:
            AimeError: if the model has no reward head, or one that never saw a reward.
        """
        self._control = dynamics.expect_rewards()
        self.dynamics, self.config, self.critic, self.proposers = dynamics, config, critic, proposers
        self.limits = config.limits(critic is not None)
        self.behaviour: Behaviour = proposers[0] if proposers else self._control.action_schema
        self.reset(0)

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Drop the plan, and begin episodes: see `Decider.reset`."""
        self._random = EpisodeNoise(batch, seeds)
        shape = batch, self.limits.horizon, self.dynamics.widths.action
        self._plan = self.dynamics.initial_latent.detach().new_zeros(shape)

    @torch.inference_mode()
    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """The first action of the plan that the search ends with."""
        if len(self._plan) != len(state.latent):
            self.reset(len(state.latent))
        mean, scale = self._plan, torch.full_like(self._plan, self.limits.max_scale)
        # proposals are imagined and valued once, and stay candidates
        proposed, proposed_values = self._propose(state)
        for _ in range(self.config.iterations):
            drawn = self._draw(mean, scale, self.config.candidates - proposed.shape[1])
            values = torch.cat([proposed_values, self.evaluate(state, drawn)], dim=1)
            mean, scale = self._improve(torch.cat([proposed, drawn], dim=1), values)
        # the next plan starts from this one without its first step
        self._plan = torch.cat([mean[:, 1:], torch.zeros_like(mean[:, :1])], dim=1)
        return mean[:, 0]

    def evaluate(self, state: Carry, candidates: Candidates) -> Float[Tensor, "B S"]:
        """The value of each of S action sequences, in the environment's units of reward."""
        count = candidates.shape[1]
        start = state.repeated(count)
        dream = self.dynamics.rollout(start, rearrange(candidates, "b s h a -> (b s) h a"), likeliest)
        return self._value(start, dream).unflatten(0, (-1, count))

    def _value(self, start: Carry, dream: Dream) -> Float[Tensor, " N"]:
        """Of N dreams from as many states: the expected rewards, and the critic's value at their ends."""
        arrived = dream.read
        goes_on = self.config.discount * self._control.continuation(*arrived).sigmoid()
        reached = torch.cat([torch.ones_like(goes_on[:, :1]), goes_on.cumprod(1)], dim=1)
        rewards = self._control.reward(*arrived).mean
        if self.limits.leash:
            pairs = zip(start.read, arrived, strict=True)
            left = (torch.cat([first[:, None], after[:, :-1]], dim=1) for first, after in pairs)
            rewards = rewards + self.limits.leash * self.behaviour(*left).log_prob(dream.actions)
        value = (reached[:, :-1] * rewards).sum(1)
        if self.critic is not None:
            value = value + reached[:, -1] * self.critic(*(field[:, -1] for field in arrived)).mean
        return value

    def _draw(self, mean: Plan, scale: Plan, count: int) -> Candidates:
        """Sequences around the plan, which is one of them itself."""
        means = repeat(mean, "b h a -> b s h a", s=count)
        noise = self._random.normals(means[0].numel(), means).view_as(means) * scale[:, None]
        noise[:, 0] = 0
        return (means + noise).clamp(-1, 1)

    def _propose(self, state: Carry) -> tuple[Candidates, Float[Tensor, "B S"]]:
        """What the proposers would do along dreams of their own, and its value."""
        count = round(self.limits.proposed * self.config.candidates) // max(1, len(self.proposers))
        start, none = state.repeated(max(1, count)), self._plan[:, None][:, :0]

        def act_out(proposer: Behaviour) -> Dream:
            def act(now: Carry, number: int) -> Tensor:
                distribution = proposer(*now.read)
                noise = self._random.uniforms(count * distribution.noise_width, now.latent)
                return distribution.from_uniforms(rearrange(noise, "b (s w) -> (b s) w", s=count))

            return self.dynamics.behave(start, act, self.limits.horizon, likeliest)

        dreams = [act_out(proposer) for proposer in self.proposers if count]
        actions = [none, *(dream.actions.unflatten(0, (-1, count)) for dream in dreams)]
        values = [none[..., 0, 0], *(self._value(start, dream).unflatten(0, (-1, count)) for dream in dreams)]
        return torch.cat(actions, dim=1), torch.cat(values, dim=1)

    def _improve(self, candidates: Candidates, values: Float[Tensor, "B S"]) -> tuple[Plan, Plan]:
        """Mean and standard deviation of the elite."""
        best = values.nan_to_num(-torch.inf).topk(self.config.elite, dim=1)
        elite = torch.take_along_dim(candidates, best.indices[..., None, None], dim=1)
        if self.config.kind == "cem":
            weights = torch.full_like(best.values, 1 / self.config.elite)
        else:
            spread = self.config.temperature * best.values.std(dim=1, keepdim=True).clamp(min=1e-6)
            weights = torch.softmax((best.values - best.values[:, :1]) / spread, dim=1)
        weights = weights[..., None, None]
        mean = (weights * elite).sum(1)
        variance = (weights * (elite - mean[:, None]).square()).sum(1)
        return mean, variance.sqrt().clamp(self.config.min_scale, self.limits.max_scale)
