"""Half of the frame hidden for a few frames: whether attention and state follow what the model remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from aime.attention.kinds import ATTENTIONS
from aime.attention.maps import centre_of_mass
from aime.data import Clips
from aime.inference.inspection.chain import Recording, attention_of, follow, record
from aime.inference.inspection.figures import mean, ratio
from aime.inference.inspection.probes import errors_on_frames
from aime.primitives.intervals import Interval
from aime.world_model.model import AIME

SEEN, HIDDEN = 10, 5
"""Whole frames before those of which half is hidden, and the number of those."""

GREY = 128
"""The value of hidden pixels."""


def hidden_frames(length: int) -> slice | None:
    """The frames of a clip of which half is hidden, earlier in short clips; None where there is no frame before."""
    start = min(SEEN, length - HIDDEN)
    return slice(start, start + HIDDEN) if start > 0 else None


def hide_half(
    frames: UInt8[Tensor, "B T 3 H W"], masks: UInt8[Tensor, "B T H W"] | None, hidden: slice
) -> UInt8[Tensor, "B T 3 H W"]:
    """The frames with the left or right half grey in some of them.

    It is the half that holds most of the body in the hidden frames; without masks the left one of every other clip.
    """
    middle = frames.shape[-1] // 2
    if masks is None:
        left: Bool[Tensor, " B"] = torch.arange(len(frames), device=frames.device) % 2 == 0
    else:
        columns = (masks[:, hidden] > 0).sum(dim=(1, 2)).to(frames.device)
        left = columns[:, :middle].sum(dim=1) >= columns[:, middle:].sum(dim=1)
    found = frames.clone()
    for clip, is_left in zip(found, left.tolist(), strict=True):
        clip[hidden, :, :, slice(None, middle) if is_left else slice(middle, None)] = GREY
    return found


@torch.inference_mode()
def occlusion_figures(
    model: AIME,
    clips: Clips,
    seeds: Sequence[int],
    recording: Recording,
    episodes: Int64[np.ndarray, " B"],
    names: Mapping[str, int],
) -> dict[str, Interval]:
    """Errors of A_t's centre and of the state where half of the frame is hidden, and over those where it is not.

    Args:
        model: in eval mode.
        clips: those that were recorded.
        seeds: of the clips.
        recording: of the whole frames.
        episodes: the number of the episode of each clip.
        names: the fields of the state and their widths; see `probe_parts`.
    """
    hidden = hidden_frames(clips.frames.shape[1])
    if hidden is None:
        return {}
    masks = recording.masks
    changed = clips._replace(frames=hide_half(clips.frames, masks, hidden))
    both = [(each, follow(model, each)) for each in (recording, record(model, changed, seeds))]
    found = {}
    if masks is not None and ATTENTIONS[model.config.attention.kind].attends:
        maps = [attention_of(model, path).fused[:, hidden] for _, path in both]
        before, after = (centre_errors(each, masks[:, hidden]) for each in maps)
        found["hidden_centre_error"] = mean(after, episodes)
        found["seen_centre_error"] = mean(before, episodes)
        found["hidden_centre_ratio"] = ratio(after, before, episodes)
    features = [torch.cat([path.track.beliefs, each.latents], dim=-1) for each, path in both]
    errors = errors_on_frames(features[0], features[1], clips.states, episodes, names, hidden)
    if errors is not None:
        found["hidden_state_ratio"] = ratio(errors[1], errors[0], episodes, root=True)
    return found


def centre_errors(maps: Float[Tensor, "B T h w"], masks: UInt8[Tensor, "B T H W"]) -> Float[Tensor, "B T"]:
    """The distance in cells of a map's centre of mass from that of the body; NaN where none is shown."""
    body = F.adaptive_avg_pool2d((masks > 0).float(), maps.shape[-1])
    area = body.sum(dim=(-2, -1))
    centre = centre_of_mass(body / area.clamp_min(1e-8)[..., None, None])
    distance = (centre_of_mass(maps) - centre).norm(dim=-1)
    return torch.where(area > 0, distance, torch.nan)
