"""A film of an agent: the frame, the frame it predicts for a second later, what came then, and its attention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from aime.dynamics.choices import likeliest
from aime.dynamics.states import Carry
from aime.inference.dreams import to_numpy, to_pixels
from aime.inference.overlays import full_scale, overlay
from aime.inference.render import Strip, film, scale_for
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState, Observation

TILE = 192
"""Approximate width of a frame, in screen pixels."""

EVERY = 2
"""Steps from one picture to the next."""


class AgentFilm:
    """The film of the first of an agent's episodes."""

    def __init__(self, model: AIME, act: Callable[[Carry], Tensor], ahead: int) -> None:
        """A film without pictures; in dreams of `ahead` steps, 1 or more, the actions are `act` of the states."""
        self.model, self.act, self.ahead = model, act, ahead
        self._frames: list[UInt8[np.ndarray, "H W 3"]] = []
        self._dreams: list[UInt8[np.ndarray, "H W 3"]] = []
        self._maps: list[Float[np.ndarray, "h w"]] = []

    @torch.inference_mode()
    def add(self, frame: UInt8[np.ndarray, "H W 3"], state: BeliefState, seen: Observation) -> None:
        """Add a frame, what the model believes after it, and what it inferred from it."""
        self._frames.append(frame)
        if (len(self._frames) - 1) % EVERY:
            return
        start = state.carry.pick(slice(1))
        dream = self.model.dynamics.behave(start, lambda carry, number: self.act(carry), self.ahead, likeliest)
        maps = self.model.attention.roll(dream.beliefs, dream.latents, state.last_map[:1])
        self._dreams.append(to_pixels(self.model.draw(dream.latents[:, -1], maps[:, -1]))[0])
        self._maps.append(to_numpy(seen.attention)[0])

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
