"""One recorded episode: what a camera saw, what was done, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8


@dataclass(frozen=True)
class Episode:
    """Consecutive steps of one episode, or a stretch of one.

    `action[t]` is taken after seeing `pixels[t]`; `reward[t]` and `terminated[t]` describe the arrival at `pixels[t]`.
    The last action of an episode and its first reward may be NaN: neither has happened. All of its actions may be NaN,
    or all of its rewards, where none were recorded: plain video has a single action that is always NaN.

    Attributes:
        pixels: `[L, H, W, 3]` frames, 0 to 255.
        action: `[L, A]` in [-1, 1].
        reward: `[L]`, in the environment's units.
        terminated: `[L]`, true where the arrival ended the episode for good.
        state: `[L, S]` state of simulator or robot in its own units, NaN where a number is not known; None where none
            was recorded.
        mask: `[L, H, W]` id of the instance that each pixel shows, 0 the background; None where none was recorded. It
            is no part of the episode's identity (`aime.data.identity`).
    """

    pixels: UInt8[np.ndarray, "L H W 3"]
    action: Float32[np.ndarray, "L A"]
    reward: Float32[np.ndarray, " L"]
    terminated: Bool[np.ndarray, " L"]
    state: Float32[np.ndarray, "L S"] | None = None
    mask: UInt8[np.ndarray, "L H W"] | None = None

    def __len__(self) -> int:
        """The number of steps L, which is also the number of frames."""
        return int(self.pixels.shape[0])
