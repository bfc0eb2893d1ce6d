"""What a model dreams after a context, beside what happened: the material of pictures and films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.data import Clips
from aime.inference.evaluate import Predictor


@dataclass(frozen=True)
class Dreams:
    """B clips and the futures that a model gives them, frames 0 to 255.

    Attributes:
        context: frames that the model saw; up to there every dream shows the truth.
        truth: `[B,T,H,W,3]`.
        likeliest: `[B,T,H,W,3]`, the single most likely future.
        samples: `[B,S,T,H,W,3]`, sampled futures.
    """

    context: int
    truth: UInt8[np.ndarray, "B T H W 3"]
    likeliest: UInt8[np.ndarray, "B T H W 3"]
    samples: UInt8[np.ndarray, "B S T H W 3"]

    @property
    def clips(self) -> int:
        """B."""
        return self.truth.shape[0]

    @property
    def difference(self) -> UInt8[np.ndarray, "B T H W"]:
        """|likeliest - truth|, the largest of the three colours, 0 to 255."""
        return np.abs(self.likeliest.astype(np.int16) - self.truth).max(axis=-1).astype(np.uint8)


@torch.inference_mode()
def dream(model: Predictor, clips: Clips, context: int, samples: int, seed: int = 0) -> Dreams:
    """Let a model go on from the first `context` frames of each clip under the clip's own actions.

    Args:
        model: in eval mode.
        clips: of more than `context` frames, without padding.
        context: frames that the model sees, 1 or more.
        samples: sampled futures of each clip, 1 or more.
        seed: of the samples.
    """
    clips = clips.to(model.device)
    seen = clips.frames[:, :context]
    likeliest = model.predict_future(seen, clips.actions).frames
    sampled = model.predict_future(seen, clips.actions, samples, seed).frames
    past = to_pixels(seen)
    repeated = np.broadcast_to(past[:, None], (past.shape[0], samples, *past.shape[1:]))
    return Dreams(
        context=context,
        truth=to_pixels(clips.frames),
        likeliest=np.concatenate([past, to_pixels(likeliest)], axis=1),
        samples=np.concatenate([repeated, to_pixels(sampled)], axis=2),
    )


def to_pixels(frames: UInt8[Tensor, "*N 3 H W"] | Float[Tensor, "*N 3 H W"]) -> UInt8[np.ndarray, "*N H W 3"]:
    """Frames as pixel values 0 to 255, channels last; floats are in [0, 1] and are rounded."""
    if frames.is_floating_point():
        frames = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(frames.movedim(-3, -1).cpu().numpy())
