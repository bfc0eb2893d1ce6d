"""Many dreams side by side, each a world of its own: begun at real frames, stepped together, in one call for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int64, UInt8, UInt64
from torch import Tensor

from aime.agents.dream_starts import Starts
from aime.dynamics.choices import Choice, likeliest
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry
from aime.primitives.counted_noise import GOLDEN, mixed, uniforms
from aime.primitives.distributions import GaussianMixture, drawn_from
from aime.primitives.pixels import to_bytes
from aime.world_model.model import AIME
from aime.world_model.prediction import decode_in_chunks

GOES_ON = 0.5
"""A dream ends where its episode goes on with a probability below this."""


@dataclass(frozen=True)
class Rules:
    """How dreams go on and end."""

    horizon: int
    """Steps after which an episode is truncated."""
    terminate: bool
    """End an episode where the model says so."""
    deterministic: bool
    """Take the likeliest next latent, the heaviest component's mean, in place of a sample."""


class DreamSnapshot(NamedTuple):
    """All that N dreams are at a moment; nothing in it changes afterwards."""

    keys: UInt64[np.ndarray, " N"]
    elapsed: Int64[np.ndarray, " N"]
    ended: Bool[np.ndarray, " N"]
    state: Carry
    last_map: Float[Tensor, "N h w"] | None
    frames: UInt8[Tensor, "N H W 3"] | None


class Outcome(NamedTuple):
    """What a step brought to N dreams."""

    reward: Float32[np.ndarray, " N"]
    """The mean of the reward head, in the data's units."""
    continuation: Float32[np.ndarray, " N"]
    """The probability in [0, 1] that the episode goes on."""
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]


class DreamWorlds:
    """N dreams of one latent dynamics.

    Each has a key, which decides where it begins and every sample that it takes, so that it depends on its seed and its
    actions alone: not on N, nor on any generator's state.

    Attributes:
        ended: `[N]`, the dreams whose episode is over.
    """

    def __init__(
        self, dynamics: LatentDynamics, starts: Starts, rules: Rules, count: int, painter: AIME | None = None
    ) -> None:
        """Set N dreams up; `seed` and `begin` them before anything else.

        Args:
            dynamics: in eval mode, with control heads.
            starts: where they may begin.
            rules: how they go on and end.
            count: N.
            painter: the whole model, to draw every frame, which costs far more than the step; None to draw none.

        Raises:
            AimeError: if the model has no reward head, or one that never saw a reward.
        """
        self.dynamics, self.control, self.painter = dynamics, dynamics.expect_rewards(), painter
        self.starts, self.rules = starts, rules
        self.ended = np.ones(count, bool)
        self._keys = np.zeros(count, np.uint64)
        self._elapsed = np.zeros(count, np.int64)
        self._now = starts.pick(torch.zeros(count, dtype=torch.long, device=dynamics.device))

    def seed(self, seeds: Int64[np.ndarray, " N"]) -> None:
        """Decide what the next episode of each dream, and those after it, will be."""
        self._keys = mixed(seeds.astype(np.uint64))

    @torch.inference_mode()
    def begin(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Start the next episode of some dreams, at real frames."""
        self._keys = np.where(rows, mixed(self._keys + GOLDEN), self._keys)
        self._elapsed = np.where(rows, 0, self._elapsed)
        self.ended = self.ended & ~rows
        index = torch.from_numpy(np.flatnonzero(rows)).to(self.dynamics.device)
        places = (self._keys[rows] % np.uint64(self.starts.number)).astype(np.int64)
        begun = self.starts.pick(torch.from_numpy(places).to(self.dynamics.device))
        self._now = self._now.replace(index, begun, self.visible)

    @torch.inference_mode()
    def step(self, actions: Float[np.ndarray, "N A"]) -> Outcome:
        """Advance all dreams by finite actions, clipped to [-1, 1]; those that have ended too."""
        action = torch.from_numpy(actions.astype(np.float32)).to(self.dynamics.device).clamp(-1, 1)
        choose = likeliest if self.rules.deterministic else self._sampled
        state, _, _ = self.dynamics.step(self._now.state, action, choose)
        self._elapsed = self._elapsed + 1
        self._now = self._look(state)
        reward = self.control.reward(*state.read).mean.cpu().numpy()
        going_on = self.control.continuation(*state.read).sigmoid().cpu().numpy()
        terminated = (going_on < GOES_ON) & self.rules.terminate
        truncated = self._elapsed >= self.rules.horizon
        self.ended = terminated | truncated
        return Outcome(reward, going_on, terminated, truncated)

    @property
    def visible(self) -> bool:
        """Whether frames are drawn."""
        return self.painter is not None

    @torch.inference_mode()
    def latents(self) -> Float32[np.ndarray, "N features"]:
        """[h_{t-1}, z_t] of every dream."""
        state = self._now.state
        return torch.cat([state.belief, state.latent], dim=-1).float().cpu().numpy()

    def frames(self) -> UInt8[np.ndarray, "N H W 3"]:
        """What every dream looks like now, 0 to 255: a real frame where it has just begun."""
        assert self.visible, "frames are drawn only where they were asked for"
        return self._now.frames.cpu().numpy().copy()

    def snapshot(self) -> DreamSnapshot:
        """All that the dreams are now."""
        seen = (self._now.last_map, self._now.frames) if self.visible else (None, None)
        return DreamSnapshot(self._keys, self._elapsed, self.ended, self._now.state, *seen)

    def restore(self, snapshot: DreamSnapshot) -> None:
        """Go on from a snapshot of as many dreams under the same rules."""
        self._keys, self._elapsed, self.ended = snapshot.keys, snapshot.elapsed, snapshot.ended
        self._now = self._now._replace(state=snapshot.state)
        if snapshot.last_map is not None and snapshot.frames is not None:
            self._now = Starts(snapshot.state, snapshot.last_map, snapshot.frames)

    def _sampled(self, mixture: GaussianMixture, number: int) -> Choice:
        """A sample of each dream's mixture, by the noise of its key and step."""
        components, width = mixture.means.shape[-2:]
        noise = torch.from_numpy(uniforms(self._keys, self._elapsed, components + width)).to(mixture.means)
        return Choice(*drawn_from(mixture, noise))

    def _look(self, state: Carry) -> Starts:
        if self.painter is None:
            return self._now._replace(state=state)
        expected = self.painter.attention.expect(state.belief, state.latent, self._now.last_map).map
        frames = decode_in_chunks(self.painter, state.latent, expected)
        return Starts(state, expected, rearrange(to_bytes(frames), "n c h w -> n h w c").contiguous())
