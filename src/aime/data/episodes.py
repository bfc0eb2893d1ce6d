"""A recorded episode: frames, actions, rewards, states and masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8


@dataclass(frozen=True)
class Episode:
    """Consecutive steps of an episode.

    `action[t]` is taken after `pixels[t]`; `reward[t]` and `terminated[t]` arrive with `pixels[t]`. The last action and
    the first reward of an episode may be NaN. All actions or all rewards may be NaN if none were recorded; plain video
    has one action that is always NaN.

    Attributes:
        pixels: `[L, H, W, 3]` frames, 0 to 255.
        action: `[L, A]` in [-1, 1].
        reward: `[L]`, in the environment's units.
        terminated: `[L]`, true if the episode terminated with this frame.
        state: `[L, S]` state of simulator or robot in its own units, NaN if unknown; None if none was recorded.
        mask: `[L, H, W]` instance id of each pixel, 0 for the background; None if none was recorded. Not part of the
            episode's identity (`aime.data.identity`).
    """

    pixels: UInt8[np.ndarray, "L H W 3"]
    action: Float32[np.ndarray, "L A"]
    reward: Float32[np.ndarray, " L"]
    terminated: Bool[np.ndarray, " L"]
    state: Float32[np.ndarray, "L S"] | None = None
    mask: UInt8[np.ndarray, "L H W"] | None = None

    def __len__(self) -> int:
        """The number of steps L."""
        return int(self.pixels.shape[0])
