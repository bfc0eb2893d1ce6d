"""Sampling noise with one seed per row, so that a row's noise does not depend on the rest of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt64
from torch import Tensor

from aime.errors import AimeError
from aime.primitives.counter_noise import GOLDEN, mix64, uniforms
from aime.primitives.distributions import DiagonalGaussian

Seeds = int | Sequence[int]
"""One seed per row, or one number: row n then has the seed `number + n`."""

Purpose = Literal["future", "posterior"]
"""Samples of different purposes have different noise for the same seed."""

_OFFSETS: dict[Purpose, np.uint64] = {"future": GOLDEN, "posterior": np.uint64(0x8CB92BA72F3D8DD7)}
_APART = np.uint64(0xD1B54A32D192ED03)
"""Differs from the constant for steps; otherwise sample s of step t had the noise of sample t of step s."""
_WORD = 2**64


def seeded_uniforms(
    seeds: Seeds, shape: tuple[int, int, int, int], purpose: Purpose, device: torch.device
) -> Float32[Tensor, "B S T width"]:
    """Uniform numbers in (0, 1); those of row b depend on its seed only.

    More samples, more steps or a larger width do not change the existing numbers. They are computed on the CPU, so that
    every device gets the same numbers.

    Args:
        seeds: see `Seeds`; integers modulo 2⁶⁴.
        shape: B rows, S samples, T steps, width.
        purpose: of the samples.
        device: of the result.

    Raises:
        AimeError: if there are not B seeds.
    """
    rows, samples, steps, width = shape
    keys = mix64(row_words(seeds, rows) + _OFFSETS[purpose])
    keys = mix64(keys[:, None] + _APART * np.arange(1, samples + 1, dtype=np.uint64)).reshape(-1)
    drawn = uniforms(keys.repeat(steps), np.tile(np.arange(steps, dtype=np.int64), len(keys)), width)
    return torch.from_numpy(drawn).unflatten(0, (rows, samples, steps)).to(device, non_blocking=True)


def posterior_samples(posterior: DiagonalGaussian, seeds: Seeds, samples: int) -> Float[Tensor, "B S T latent"]:
    """S samples of the posterior `[B,T,latent]` of every frame; a row's samples depend on its seed only."""
    rows, steps, latent = posterior.mean.shape
    noise = seeded_uniforms(seeds, (rows, samples, steps, latent), "posterior", posterior.mean.device)
    normal = torch.special.ndtri(noise).to(posterior.mean)
    return torch.addcmul(posterior.mean[:, None], posterior.std[:, None], normal)


def row_words(seeds: Seeds, rows: int) -> UInt64[np.ndarray, " B"]:
    """The seed of each row as a 64-bit word.

    Raises:
        AimeError: if the number of seeds is not that of rows.
    """
    if isinstance(seeds, int):
        seeds = range(seeds, seeds + rows)
    if len(seeds) != rows:
        raise AimeError(f"seed has {len(seeds)} numbers; expected {rows}, one for each row, or a single number")
    return np.array([int(seed) % _WORD for seed in seeds], dtype=np.uint64)
