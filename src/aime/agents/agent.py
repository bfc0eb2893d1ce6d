"""What acts: a world model that watches, and what decides from the state of its belief."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.agents.noise import EpisodeNoise
from aime.dynamics.states import Carry
from aime.errors import AimeError, expect_at_least_zero
from aime.primitives.distributions import CensoredGaussian, CensoredMixture
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState, Observation


class Decider(Protocol):
    """Decides from what the world model believes of B worlds; a planner carries its plans from step to step."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Forget what was before: `batch` episodes begin, whose chance follows from their seeds (`EpisodeNoise`)."""

    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """The action `[B,A]` in [-1, 1] at the frames that were just seen."""


class PolicyDecider:
    """Does what a policy thinks most likely, with or without a little noise, or a sample of it."""

    def __init__(
        self,
        policy: Callable[[Tensor, Tensor, Tensor], CensoredGaussian | CensoredMixture],
        sample: bool = False,
        noise: float = 0.0,
    ) -> None:
        """Decides for a policy.

        Args:
            policy: from belief, latent and its last step to a distribution.
            sample: from the policy, in place of its mode.
            noise: standard deviation of what is added to the action, which stays in [-1, 1]: `policy.least_noise` is
                what an agent does best under.

        Raises:
            AimeError: if the noise is negative.
        """
        self.policy, self.sample, self.noise = policy, sample, noise
        expect_at_least_zero(self, "noise")
        self._chance: EpisodeNoise | None = None

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """A policy remembers nothing but its noise."""
        self._chance = EpisodeNoise(batch, seeds)

    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """The mode of π(a_t | h_{t-1}, z_t, z_t - z_{t-1}), or one sample."""
        if self._chance is None or self._chance.batch != len(state.latent):
            self._chance = EpisodeNoise(len(state.latent))
        distribution = self.policy(*state.read)
        action = distribution.mode
        if self.sample:
            action = distribution.drawn_from(self._chance.uniforms(distribution.noise_width, action))
        if self.noise:
            action = (action + self.noise * self._chance.normals(action.shape[-1], action)).clamp(-1, 1)
        return action


class Agent:
    """Sees frames, one after the other, and answers each with an action, for B episodes at once.

    Example:
        >>> from aime.world_model.presets import tiny
        >>> model = AIME(tiny(action_width=2)).eval()
        >>> agent = Agent(model, PolicyDecider(model.dynamics.control.action_schema))
        >>> agent.reset(batch=1)
        >>> agent.act(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 2])
    """

    def __init__(self, model: AIME, decider: Decider, original_units: bool = True) -> None:
        """An agent before its first episode.

        Args:
            model: in eval mode.
            decider: from beliefs to actions.
            original_units: answer in the units of the data that the model was trained on, such as radians, where the
                model knows them (`model.action_scale`); if False, always in [-1, 1].
        """
        self.model, self.decider = model, decider
        self.scale = model.action_scale if original_units else None
        self.state: BeliefState | None = None
        """What the model believes after the last frame; for a look into its dreams."""
        self.seen: Observation | None = None
        """What the last frame told."""
        self._last: Float[Tensor, "B A"] | None = None

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes, 1 or more.

        Args:
            batch: how many.
            seeds: one each, from which alone the noise of an episode's actions follows; by default drawn from torch's
                global generator.
        """
        self.state = self.model.initial_state(batch)
        self._last = self.model.null_action.detach().expand(batch, -1)
        self.decider.reset(batch, seeds)

    @torch.inference_mode()
    def act(
        self,
        observation: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"],
        states: Float[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B A"]:
        """Look at one more frame of each episode, and act.

        Args:
            observation: `[B,3,H,W]`, uint8 or float in [0, 1].
            states: `[B,S]`, the worlds' own states, for a model that observes them; NaN where not known.

        Returns:
            Actions `[B,A]`, in the units of the training data where the model knows them, else in [-1, 1].

        Raises:
            AimeError: if `reset` was not called, or frames or states do not have the model's shape, type or range.
        """
        if self.state is None or self._last is None:
            raise AimeError("act() before any episode has begun; expected reset(batch) first: call it")
        self.state, self.seen = self.model.observe(self.state, observation, self._last, own_state=states)
        self._last = self.decider.decide(self.state.carry)
        if self.scale is None or self.scale.is_identity:
            return self._last
        return self.scale.to_source(self._last)
