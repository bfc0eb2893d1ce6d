"""An agent: a world model that observes frames, and a decider that acts on the state of its latent dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.agents.policy import Behaviour
from aime.dynamics.states import Carry
from aime.errors import AimeError, expect_at_least_zero
from aime.primitives.episode_noise import EpisodeNoise
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState, Observation


class Decider(Protocol):
    """Chooses the actions of B episodes; it may keep something, such as a plan, from step to step."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes, whose random numbers follow from their seeds: see `EpisodeNoise`."""

    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """Actions `[B,A]` in [-1, 1] at the frames that were just observed."""


class PolicyDecider:
    """Acts by the mode of a policy, or by a sample of it, perhaps with noise."""

    def __init__(self, policy: Behaviour, sample: bool = False, noise: float = 0.0) -> None:
        """Takes the standard deviation of the noise; actions stay in [-1, 1], and `policy.least_noise` suits best.

        Raises:
            AimeError: if the noise is negative.
        """
        self.behaviour, self.sample, self.noise = policy, sample, noise
        expect_at_least_zero(self, "noise")
        self.reset(0)

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """See `Decider.reset`."""
        self._random = EpisodeNoise(batch, seeds)

    def decide(self, state: Carry) -> Float[Tensor, "B A"]:
        """See `Decider.decide`."""
        if self._random.batch != len(state.latent):
            self.reset(len(state.latent))
        distribution = self.behaviour(*state.read)
        action = distribution.mode
        if self.sample:
            action = distribution.from_uniforms(self._random.uniforms(distribution.noise_width, action))
        if self.noise:
            action = (action + self.noise * self._random.normals(action.shape[-1], action)).clamp(-1, 1)
        return action


class Agent:
    """Observes frames one after the other, and answers each with an action, in B episodes at once.

    Example:
        >>> from aime.world_model.presets import tiny
        >>> model = AIME(tiny(action_width=2)).eval()
        >>> agent = Agent(model, PolicyDecider(model.dynamics.control.action_schema))
        >>> agent.reset(batch=1)
        >>> agent.act(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 2])
    """

    def __init__(self, model: AIME, decider: Decider, original_units: bool = True) -> None:
        """An agent before its first episode, with a model in eval mode.

        It acts in the units of the model's training data, such as radians, where the model knows them
        (`model.action_scale`) and `original_units` is True; else in [-1, 1].
        """
        self.model, self.decider = model, decider
        self.scale = model.action_scale if original_units else None
        self.state: BeliefState | None = None
        """What the model believes after the last frame."""
        self.seen: Observation | None = None
        """What the model inferred from the last frame."""

    def reset(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes, 1 or more, whose random actions follow from their seeds: see `EpisodeNoise`."""
        self.state = self.model.initial_state(batch)
        self._last = self.model.null_action.detach().expand(batch, -1)
        self.decider.reset(batch, seeds)

    @torch.inference_mode()
    def act(
        self,
        observation: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"],
        states: Float[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B A"]:
        """Observe one more frame of each episode, and act.

        Args:
            observation: `[B,3,H,W]`, uint8 or float in [0, 1].
            states: `[B,S]`, the environments' own states, for a model that observes them; NaN where not known.

        Returns:
            Actions `[B,A]`, in the units of the training data where the model knows them, else in [-1, 1].

        Raises:
            AimeError: if `reset` was not called, or frames or states do not have the model's shape, type or range.
        """
        if self.state is None:
            raise AimeError("act() before any episode has begun; expected reset(batch) first: call it")
        self.state, self.seen = self.model.observe(self.state, observation, self._last, own_state=states)
        self._last = self.decider.decide(self.state.carry)
        if self.scale is None or self.scale.is_identity:
            return self._last
        return self.scale.to_source(self._last)
