"""A film of an agent at play: the frame predicted a second ahead, the true frame, and where the agent looks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from aime.agents.agent import Agent
from aime.agents.planner import Proposer
from aime.dynamics.choices import likeliest
from aime.dynamics.states import Carry
from aime.inference.dreams import to_numpy, to_pixels
from aime.inference.overlays import full_scale, overlay
from aime.inference.render import Strip, film, scale_for
from aime.io.collect.environment import Arrival

TILE = 192
"""Screen pixels that a frame is enlarged to, about."""


@dataclass
class DreamFilm:
    """Follows the first of an agent's episodes, and keeps what a film of it shows.

    Attributes:
        agent: its model dreams on from every frame that is kept.
        behaviour: what the agent is taken to do in its dreams.
        ahead: steps that are dreamt, 1 or more.
        every: one frame of so many is kept.
    """

    agent: Agent
    behaviour: Proposer
    ahead: int
    every: int = 2
    _frames: list[UInt8[np.ndarray, "H W 3"]] = field(default_factory=list)
    _dreams: list[UInt8[np.ndarray, "H W 3"]] = field(default_factory=list)
    _maps: list[Float[np.ndarray, "h w"]] = field(default_factory=list)

    @torch.inference_mode()
    def look(self, step: int, arrivals: list[Arrival]) -> None:
        """Take in a step that the agent has seen."""
        self._frames.append(arrivals[0].pixels)
        if step % self.every:
            return
        assert self.agent.state is not None and self.agent.seen is not None, "the agent has seen the step"
        model = self.agent.model

        def act(carry: Carry, number: int) -> Tensor:
            return self.behaviour(*carry.read).mode

        start = self.agent.state.carry.pick(slice(1))
        dream = model.dynamics.behave(start, act, self.ahead, likeliest)
        maps = model.attention.roll(dream.beliefs, dream.latents, self.agent.state.last_map[:1])
        self._dreams.append(to_pixels(model.draw(dream.latents[:, -1], maps[:, -1]))[0])
        self._maps.append(to_numpy(self.agent.seen.attention)[0])

    def pictures(self) -> list[Image.Image]:
        """Now, the dream from here, what came then, and where the agent looks now: a picture for each kept step."""
        now = np.stack(self._frames[:: self.every])
        then = np.stack([self._frames[min(step + self.ahead, len(self._frames) - 1)] for step in self._steps()])
        maps = np.stack(self._maps)
        strips = [
            Strip("now", now, dreamt=False),
            Strip(f"dreamt {self.ahead} steps ahead", np.stack(self._dreams)),
            Strip(f"what came {self.ahead} steps later", then, dreamt=False),
            Strip("attention now", overlay(now, maps, full_scale(maps))),
        ]
        return film([strips], len(now), scale_for(now.shape[1], TILE))

    def _steps(self) -> range:
        return range(0, len(self._frames), self.every)
