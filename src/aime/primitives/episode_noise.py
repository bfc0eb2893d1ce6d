"""Random numbers of episodes that are played in one batch: those of an episode follow from its seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aime.primitives.counter_noise import mix64, uniforms
from aime.primitives.seeded_noise import row_words

_OFFSET = np.uint64(0xA24BAED4963EE407)
"""Separates the noise of an agent from that of a dream with the same seed."""


class EpisodeNoise:
    """Random numbers of B episodes in one batch: the nth draw of an episode is a function of its seed and n alone."""

    def __init__(self, batch: int, seeds: Sequence[int] | None = None) -> None:
        """Begin `batch` episodes, with one seed each; by default, seeds are drawn from torch's global generator.

        Raises:
            AimeError: if there are not as many seeds.
        """
        seeds = torch.randint(2**62, (batch,)).tolist() if seeds is None else seeds
        self._keys = mix64(row_words(seeds, batch) + _OFFSET)
        self.batch, self._draws = batch, 0

    def uniforms(self, width: int, like: Tensor) -> Float[Tensor, "B width"]:
        """The next `width` numbers in (0, 1) of each episode, of the type and on the device of `like`."""
        drawn = uniforms(self._keys, np.full(self.batch, self._draws, np.int64), width)
        self._draws += 1
        return torch.from_numpy(drawn).to(like.device, non_blocking=True).to(like.dtype)

    def normals(self, width: int, like: Tensor) -> Float[Tensor, "B width"]:
        """The same, with a standard normal distribution."""
        return torch.special.ndtri(self.uniforms(width, like))
