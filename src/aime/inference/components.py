"""Frames grouped by the mixture component with the highest responsibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from aime.data import Clips
from aime.inference.dreams import to_numpy, to_pixels
from aime.inference.metrics import perplexity
from aime.world_model.model import AIME

AT_ONCE = 4
"""Clips that are filtered in one call, which bounds memory."""

SHOWN = 6
"""Components that are shown, heaviest first."""

EXAMPLES = 10
"""Frames that are shown of a component."""

APART = 5
"""Least distance of two examples from one clip, in frames, so that the pictures differ."""

LEAST_SHARE = 0.005
"""Components that explain less of the frames are not shown."""


@dataclass(frozen=True)
class Group:
    """The N frames that a component explains best, best first."""

    component: int
    """In 0..K-1."""
    share: float
    """Its mean responsibility over all frames, in (0, 1]; those of all components sum to 1."""
    frames: UInt8[np.ndarray, "N H W 3"]
    responsibilities: Float[np.ndarray, " N"]
    """Of the component for each of them, in [0, 1]."""


@dataclass(frozen=True)
class Components:
    """Some frames, grouped by the components of a prior."""

    groups: tuple[Group, ...]
    """Heaviest first."""
    shares: Float[np.ndarray, " K"]
    """Mean responsibility of every component: what it explains. They sum to 1."""
    weights: Float[np.ndarray, " K"]
    """Mean prior weight of every component: how often it is expected. They sum to 1."""
    frames: int
    """How many frames were grouped."""

    @property
    def effective(self) -> float:
        """exp(entropy) of the shares: how many components are in even use, 1..K."""
        return float(perplexity(torch.from_numpy(self.shares)))

    @property
    def ranks(self) -> Int[np.ndarray, " K"]:
        """The place of each component: those shown first, then the others by what they explain and are expected to."""
        order = -self.shares - self.weights
        for place, group in enumerate(self.groups):
            order[group.component] = place - len(self.groups) - 2
        return order.argsort(kind="stable").argsort(kind="stable")


@torch.inference_mode()
def find_components(model: AIME, clips: Clips) -> Components:
    """Group the frames of some clips by their components.

    The responsibilities are r_k ∝ π_k N(z; μ_k, σ_k²) of the posterior's mean z under the prior of the same frame
    (Bishop 2006, "Pattern Recognition and Machine Learning", equation 9.23). The first frame of a clip, of which
    nothing could be expected, is left out.

    Args:
        model: in eval mode.
        clips: of two frames or more, without padding.
    """
    found, expected = [], []
    for start in range(0, clips.frames.shape[0], AT_ONCE):
        part = clips.rows(slice(start, start + AT_ONCE)).to(model.device)
        output = model.forward_sequence(part.frames, part.actions, part.action_valid, part.states)
        mixture = output.prior.mixture
        found.append(to_numpy(mixture.responsibilities(output.posterior.mean))[:, 1:])
        expected.append(to_numpy(mixture.weights)[:, 1:])
    return group_frames(to_pixels(clips.frames[:, 1:]), np.concatenate(found), np.concatenate(expected))


def group_frames(
    frames: UInt8[np.ndarray, "B T H W 3"],
    responsibilities: Float[np.ndarray, "B T K"],
    weights: Float[np.ndarray, "B T K"],
    shown: int = SHOWN,
    examples: int = EXAMPLES,
    apart: int = APART,
) -> Components:
    """The frames that each of the heaviest components is most responsible for.

    Args:
        frames: of B clips.
        responsibilities: sum to 1 over the components.
        weights: of the prior, which sum to 1 too.
        shown: at most so many components, 1 or more.
        examples: at most so many frames of each, 1 or more.
        apart: frames of one clip that two examples are apart at least; 1 takes any.
    """
    shares = responsibilities.mean(axis=(0, 1))
    heaviest = [each for each in (-shares).argsort(kind="stable")[:shown].tolist() if shares[each] >= LEAST_SHARE]
    groups = []
    for component in heaviest:
        clip, time = _best(responsibilities[..., component], examples, apart)
        of_these = responsibilities[clip, time, component]
        groups.append(Group(component, float(shares[component]), frames[clip, time], of_these))
    return Components(tuple(groups), shares, weights.mean(axis=(0, 1)), frames.shape[0] * frames.shape[1])


def _best(
    scores: Float[np.ndarray, "B T"], count: int, apart: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Clips and times of the highest scores, no two of one clip nearer than `apart`."""
    taken: list[tuple[int, int]] = []
    for place in (-scores).argsort(axis=None, kind="stable").tolist():
        clip, time = divmod(place, scores.shape[1])
        if all(clip != other or abs(time - before) >= apart for other, before in taken):
            taken.append((clip, time))
        if len(taken) == count:
            break
    clips, times = np.array(taken).T
    return clips, times
