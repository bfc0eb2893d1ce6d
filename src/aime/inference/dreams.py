"""Predicted futures after a context and the true frames, as arrays for pictures and films."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from aime.data import Clips
from aime.primitives.pixels import to_bytes
from aime.primitives.seeded_noise import Seeds
from aime.world_model.model import AIME
from aime.world_model.outputs import FuturePrediction


class ComponentPath(NamedTuple):
    """Which component of the prior's mixture each dreamt latent came from."""

    components: Int[np.ndarray, "*N F"]
    """In 0..K-1."""
    weights: Float[np.ndarray, "*N F"]
    """The component's weight π_k at that step, in [0, 1]."""


@dataclass(frozen=True)
class Dreams:
    """B clips and the futures that a model gives them, frames 0 to 255.

    Attributes:
        context: frames that the model saw; up to there every future shows the truth.
        truth: `[B,T,H,W,3]`.
        likeliest: `[B,T,H,W,3]`, the single most likely future.
        samples: `[B,S,T,H,W,3]`, sampled futures.
        maps: `[B,F,h,w]`, the prior map P_t of each frame of the most likely future, from the one before; sums to 1.
        path: the mixture components of the most likely future, `[B,F]`.
        sample_paths: those of the sampled futures, `[B,S,F]`.
    """

    context: int
    truth: UInt8[np.ndarray, "B T H W 3"]
    likeliest: UInt8[np.ndarray, "B T H W 3"]
    samples: UInt8[np.ndarray, "B S T H W 3"]
    maps: Float[np.ndarray, "B F h w"]
    path: ComponentPath
    sample_paths: ComponentPath

    @property
    def clips(self) -> int:
        """B."""
        return self.truth.shape[0]

    @property
    def difference(self) -> UInt8[np.ndarray, "B T H W"]:
        """|likeliest - truth|, the largest of the three colours, 0 to 255."""
        return np.abs(self.likeliest.astype(np.int16) - self.truth).max(axis=-1).astype(np.uint8)


@torch.inference_mode()
def dream(model: AIME, clips: Clips, context: int, samples: int, seed: Seeds = 0) -> Dreams:
    """Predict each clip from its first `context` frames and its actions.

    Args:
        model: in eval mode.
        clips: of more than `context` frames, without padding.
        context: frames that the model sees, 1 or more.
        samples: sampled futures of each clip, 1 or more.
        seed: of the samples: one a clip, or one number; see `AIME.predict_future`.
    """
    clips = clips.to(model.device)
    seen = clips.steps(slice(context))
    likeliest = model.predict_future(seen.frames, clips.actions, states=seen.states)
    sampled = model.predict_future(seen.frames, clips.actions, samples, seed, states=seen.states)
    past = to_pixels(seen.frames)
    repeated = np.broadcast_to(past[:, None], (past.shape[0], samples, *past.shape[1:]))
    return Dreams(
        context=context,
        truth=to_pixels(clips.frames),
        likeliest=np.concatenate([past, to_pixels(likeliest.frames)], axis=1),
        samples=np.concatenate([repeated, to_pixels(sampled.frames)], axis=2),
        maps=to_numpy(likeliest.attention),
        path=_path(likeliest),
        sample_paths=_path(sampled),
    )


def _path(future: FuturePrediction) -> ComponentPath:
    weights = future.mixture_weights.gather(-1, future.components[..., None])[..., 0]
    return ComponentPath(future.components.cpu().numpy(), to_numpy(weights))


def to_numpy(values: Float[Tensor, "*N"]) -> Float[np.ndarray, "*N"]:
    """The same numbers in fp32 on the CPU."""
    return values.float().cpu().numpy()


def to_pixels(frames: UInt8[Tensor, "*N 3 H W"] | Float[Tensor, "*N 3 H W"]) -> UInt8[np.ndarray, "*N H W 3"]:
    """Frames as pixel values 0 to 255, channels last; floats are in [0, 1] and are rounded."""
    return np.ascontiguousarray(to_bytes(frames).movedim(-3, -1).cpu().numpy())
