"""A film of an agent: the frame, the frame it predicts for a second later, what came then, and its attention."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from aime.agents.agent import Agent
from aime.agents.policy import Behaviour
from aime.dynamics.choices import likeliest
from aime.dynamics.states import Carry
from aime.inference.dreams import to_numpy, to_pixels
from aime.inference.overlays import full_scale, overlay
from aime.inference.render import Strip, film, scale_for

TILE = 192
"""Approximate width of a frame, in screen pixels."""

EVERY = 2
"""Steps from one picture to the next."""


class DreamFilm:
    """The film of an agent's first episode."""

    def __init__(self, agent: Agent, behaviour: Behaviour, ahead: int) -> None:
        """A film without pictures, of an agent that is taken to follow `behaviour` in dreams of `ahead` steps."""
        self.agent, self.behaviour, self.ahead = agent, behaviour, ahead
        self._frames: list[UInt8[np.ndarray, "H W 3"]] = []
        self._dreams: list[UInt8[np.ndarray, "H W 3"]] = []
        self._maps: list[Float[np.ndarray, "h w"]] = []

    @torch.inference_mode()
    def add(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add a frame that the agent has just acted on."""
        self._frames.append(frame)
        if (len(self._frames) - 1) % EVERY:
            return
        assert self.agent.state is not None and self.agent.seen is not None, "the agent has observed the frame"
        model = self.agent.model

        def act(carry: Carry, number: int) -> Tensor:
            return self.behaviour(*carry.read).mode

        start = self.agent.state.carry.pick(slice(1))
        dream = model.dynamics.behave(start, act, self.ahead, likeliest)
        maps = model.attention.roll(dream.beliefs, dream.latents, self.agent.state.last_map[:1])
        self._dreams.append(to_pixels(model.draw(dream.latents[:, -1], maps[:, -1]))[0])
        self._maps.append(to_numpy(self.agent.seen.attention)[0])

    def pictures(self) -> list[Image.Image]:
        """A picture for each step that is shown."""
        steps = np.arange(0, len(self._frames), EVERY)
        frames, maps = np.stack(self._frames), np.stack(self._maps)
        now, then = frames[steps], frames[np.minimum(steps + self.ahead, len(frames) - 1)]
        strips = [
            Strip("now", now, dreamt=False),
            Strip(f"dreamt {self.ahead} steps ahead", np.stack(self._dreams)),
            Strip(f"what came {self.ahead} steps later", then, dreamt=False),
            Strip("attention now", overlay(now, maps, full_scale(maps))),
        ]
        return film([strips], len(now), scale_for(now.shape[1], TILE))
