"""Procedural static and moving images that replace sky and floor.

After the DMC Vision Benchmark (Ortiz et al. 2024, arXiv 2409.18330), which replaces the background with a picture
or a video. Its videos cannot be bundled. Here the images are computed: noise over several octaves, moving blobs, and
drifting stripes over a gradient, in random colours. Moving images are periodic.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, Float32, UInt8

DistractorKind = Literal["none", "static", "dynamic"]

DISTRACTORS: tuple[str, ...] = get_args(DistractorKind)

PERIOD = (40, 120)
"""Range of the period in frames."""


class Pattern(Protocol):
    """A field of values in [0, 1] over the image, periodic in its phase."""

    def __call__(self, phase: float) -> Float[np.ndarray, "H W"]:
        """The field at a phase in radians, with period 2π."""


class Distractor:
    """A static or moving background, determined by the state of the generator.

    Attributes:
        period: of a moving image in frames; 0 for a static one.
    """

    def __init__(self, generator: np.random.Generator, size: int, moving: bool) -> None:
        """Draw a pattern, its colours, its speed and its starting phase.

        Args:
            generator: the source of randomness.
            size: height and width in pixels.
            moving: whether the image moves.
        """
        self._colours = generator.uniform(0.0, 255.0, (3, 3))
        self._pattern: Pattern = (Clouds, Blobs, Stripes)[generator.integers(3)](generator, size)
        self._shade: Pattern = Clouds(generator, size)
        self._start = float(generator.uniform(0.0, 2.0 * np.pi))
        period = int(generator.integers(PERIOD[0], PERIOD[1] + 1))
        self.period = period if moving else 0

    def frame(self, step: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image at a step of the episode, `[size, size, 3]`, 0 to 255."""
        turned = 2.0 * np.pi * step / self.period if self.period else 0.0
        phase = self._start + turned
        mix, shade = self._pattern(phase)[..., None], self._shade(phase)[..., None]
        low, high, tint = self._colours
        picture = 0.75 * ((1.0 - mix) * low + mix * high) + 0.25 * shade * tint
        return np.rint(np.clip(picture, 0.0, 255.0)).astype(np.uint8)


class Clouds:
    """Noise over four octaves: waves in random directions, each with a whole number of cycles per period.

    The amplitude is inversely proportional to the frequency, as in natural images (Field 1987).
    """

    OCTAVES = 4
    WAVES = 4

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        frequency = np.repeat(2.0 ** np.arange(self.OCTAVES), self.WAVES) * generator.uniform(0.7, 1.4)
        count = len(frequency)
        angle, self._offset = generator.uniform(0.0, 2.0 * np.pi, (2, count))
        self._turns = generator.integers(-2, 3, count).astype(np.float64)
        self._amplitude = 1.0 / frequency
        vertical, horizontal = _grid(size)
        along = np.cos(angle)[:, None, None] * horizontal + np.sin(angle)[:, None, None] * vertical
        self._waves = 2.0 * np.pi * frequency[:, None, None] * along

    def __call__(self, phase: float) -> Float[np.ndarray, "H W"]:
        """The field at a phase in radians, `[H, W]` in [0, 1]."""
        shift = self._offset + self._turns * phase
        waves = np.cos(self._waves + shift[:, None, None])
        field = np.tensordot(self._amplitude, waves, axes=1)
        return 1.0 / (1.0 + np.exp(-3.0 * field / np.sqrt((self._amplitude**2).sum())))


class Blobs:
    """Blobs on closed orbits."""

    COUNT = 6

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        self._centre = generator.uniform(0.0, 1.0, (self.COUNT, 2))
        self._reach = generator.uniform(0.1, 0.4, (self.COUNT, 2))
        self._offset = generator.uniform(0.0, 2.0 * np.pi, (self.COUNT, 2))
        self._turns = generator.choice([-2.0, -1.0, 1.0, 2.0], (self.COUNT, 1))
        self._radius = generator.uniform(0.05, 0.18, self.COUNT)
        self._grid = np.stack(_grid(size))

    def __call__(self, phase: float) -> Float[np.ndarray, "H W"]:
        """The field at a phase in radians, `[H, W]` in [0, 1]."""
        centre = self._centre + self._reach * np.cos(self._offset + self._turns * phase)
        squares = ((self._grid[None] - centre[:, :, None, None]) ** 2).sum(axis=1)
        empty = 1.0 - np.exp(-squares / (2.0 * self._radius[:, None, None] ** 2))
        return 1.0 - empty.prod(axis=0)


class Stripes:
    """Drifting stripes over a gradient."""

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        angle, tilt, self._offset = generator.uniform(0.0, 2.0 * np.pi, 3)
        frequency = generator.uniform(2.0, 8.0)
        vertical, horizontal = _grid(size)
        self._stripes = 2.0 * np.pi * frequency * (np.cos(angle) * horizontal + np.sin(angle) * vertical)
        slope = np.cos(tilt) * (horizontal - 0.5) + np.sin(tilt) * (vertical - 0.5)
        self._gradient = 0.5 + slope / np.sqrt(2.0)
        self._turns = float(generator.choice([-6.0, -3.0, 3.0, 6.0]))

    def __call__(self, phase: float) -> Float[np.ndarray, "H W"]:
        """The field at a phase in radians, `[H, W]` in [0, 1]."""
        wave = np.sin(self._stripes + self._offset + self._turns * phase)
        return 0.5 * self._gradient + 0.25 + 0.25 * wave


def make_distractor(kind: str, generator: np.random.Generator, size: int) -> Distractor | None:
    """The distractor of one episode, or None for the kind `none`.

    Args:
        kind: a name in `DISTRACTORS`.
        generator: the source of randomness.
        size: height and width in pixels.
    """
    return None if kind == "none" else Distractor(generator, size, moving=kind == "dynamic")


def blend(
    pixels: UInt8[np.ndarray, "H W 3"],
    picture: UInt8[np.ndarray, "H W 3"],
    background: Float32[np.ndarray, "H W"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Replace the background with an image; pixels without background do not change.

    Args:
        pixels: the rendered frame, `[H, W, 3]`, 0 to 255.
        picture: the new background, likewise.
        background: its share of each pixel, `[H, W]` in [0, 1].
    """
    share = background[..., None]
    return np.rint((1.0 - share) * pixels + share * picture).astype(np.uint8)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal coordinates of pixels in [0, 1), `[H, W]` each."""
    line = np.arange(size) / size
    vertical, horizontal = np.meshgrid(line, line, indexing="ij")
    return vertical, horizontal
