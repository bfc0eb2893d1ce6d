"""The noise of samples: each row of a batch has a seed of its own, so that its noise does not depend on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt64
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.counted_noise import GOLDEN, mixed, uniforms
from aime.primitives.distributions import DiagonalGaussian

Seeds = int | Sequence[int]
"""One seed a row, or one number: then row n has the seed `number + n`."""

Purpose = Literal["future", "posterior"]
"""Samples of different kinds have different noise, of the same seed too."""

_OFFSETS: dict[Purpose, np.uint64] = {"future": GOLDEN, "posterior": np.uint64(0x8CB92BA72F3D8DD7)}
_APART = np.uint64(0xD1B54A32D192ED03)
"""Another odd number than steps are counted by, or sample s of step t would have the noise of sample t of step s."""
_WORD = 2**64


def seeded_uniforms(
    seeds: Seeds, shape: tuple[int, int, int, int], purpose: Purpose, device: torch.device
) -> Float32[Tensor, "B S T width"]:
    """Uniform numbers in (0, 1); those of row b are a function of its seed, and grow at their ends alone.

    That is: more samples, more steps or a larger width leave the numbers that were there as they are. They are computed
    on the CPU, so that they are the same on every device, and moved at once.

    Args:
        seeds: see `Seeds`; whole numbers, of which the last 64 bits count.
        shape: B rows, S samples, T steps, and the width of each.
        purpose: what they are for.
        device: where they are wanted.

    Raises:
        AimeError: if there are not B seeds.
    """
    rows, samples, steps, width = shape
    keys = mixed(row_words(seeds, rows) + _OFFSETS[purpose])
    keys = mixed(keys[:, None] + _APART * np.arange(1, samples + 1, dtype=np.uint64)).reshape(-1)
    drawn = uniforms(keys.repeat(steps), np.tile(np.arange(steps, dtype=np.int64), len(keys)), width)
    return torch.from_numpy(drawn).unflatten(0, (rows, samples, steps)).to(device, non_blocking=True)


def posterior_samples(posterior: DiagonalGaussian, seeds: Seeds, samples: int) -> Float[Tensor, "B S T latent"]:
    """S samples of the posterior `[B,T,latent]` of every frame; those of a row follow from its seed alone."""
    rows, steps, latent = posterior.mean.shape
    noise = seeded_uniforms(seeds, (rows, samples, steps, latent), "posterior", posterior.mean.device)
    normal = torch.special.ndtri(noise).to(posterior.mean)
    return torch.addcmul(posterior.mean[:, None], posterior.std[:, None], normal)


def row_words(seeds: Seeds, rows: int) -> UInt64[np.ndarray, " B"]:
    """The seed of each row as a word of 64 bits.

    Raises:
        AimeError: if there are not as many seeds as rows.
    """
    if isinstance(seeds, int):
        seeds = range(seeds, seeds + rows)
    if len(seeds) != rows:
        raise AimeError(f"seed has {len(seeds)} numbers; expected {rows}, one for each row, or a single number")
    return np.array([int(seed) % _WORD for seed in seeds], dtype=np.uint64)
