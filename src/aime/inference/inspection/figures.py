"""Figures of a model against masks and tokens: what slots and attention hold, and what tokens tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from aime.attention.kinds import ATTENTIONS
from aime.inference import metrics
from aime.inference.foreground import Counts, count_pixels, differs, find_scene
from aime.inference.inspection.chain import Recording, attention_of, follow
from aime.inference.inspection.tokens import histogram_nats
from aime.inference.mask_scores import score_on_grid
from aime.primitives.intervals import Interval, interval_over
from aime.primitives.pixels import to_unit
from aime.world_model.model import AIME

FrameScores = Float[Tensor, "B T"]


def ratio(above: FrameScores, below: FrameScores, episodes: Int64[np.ndarray, " B"], root: bool = False) -> Interval:
    """Σ above / Σ below over all frames of which both are known, with its 95 % interval over episodes.

    With `root` the square root of it, for squared errors.
    """
    known = above.isfinite() & below.isfinite()
    sums = [torch.where(known, each, 0.0).double().sum(dim=1).cpu().numpy() for each in (above, below)]

    def figure(counts: Float64[np.ndarray, "R B"]) -> Float64[np.ndarray, " R"]:
        top, bottom = (counts @ each for each in sums)
        found = np.where(bottom != 0, top / np.where(bottom != 0, bottom, 1.0), np.nan)
        return np.sqrt(found) if root else found

    return interval_over(figure, episodes)


def mean(values: FrameScores, episodes: Int64[np.ndarray, " B"]) -> Interval:
    """The mean over all frames of which it is known."""
    return ratio(values, torch.ones_like(values), episodes)


@torch.inference_mode()
def token_figures(model: AIME, recording: Recording, episodes: Int64[np.ndarray, " B"]) -> dict[str, Interval]:
    """What tokens tell; empty for a model without a Perceiver."""
    read = recording.token_nats
    if read is None:
        return {}
    codes = model.config.tokenizer.codes
    found = {"token_nats": mean(read, episodes)}
    usual = histogram_nats(recording.tokens, torch.from_numpy(episodes).to(read.device), codes)
    if usual is not None:
        found |= {"histogram_nats": mean(usual, episodes), "token_ratio": ratio(read, usual, episodes)}
    used = torch.stack([torch.bincount(each.flatten(), minlength=codes) for each in recording.tokens]).cpu().numpy()
    found["code_perplexity"] = interval_over(
        lambda counts: metrics.perplexity(torch.from_numpy(counts @ used)).numpy(), episodes
    )
    drawn = _foreground(model, recording)
    if drawn is not None:
        found["token_f1"] = ratio(2 * drawn.hits, drawn.found + drawn.true, episodes)
    return found


@torch.inference_mode()
def mask_figures(model: AIME, recording: Recording, episodes: Int64[np.ndarray, " B"]) -> dict[str, Interval]:
    """What slots and A_t hold of the body; empty without masks, or where attention is uniform."""
    if recording.masks is None or not ATTENTIONS[model.config.attention.kind].attends:
        return {}
    scores = score_on_grid(attention_of(model, follow(model, recording)), recording.masks)
    return {
        "slot_iou": mean(scores.iou, episodes),
        "attention_mass": mean(scores.attention, episodes),
        "attention_area": mean(scores.area, episodes),
        "attention_ratio": ratio(scores.attention, scores.area, episodes),
    }


def _foreground(model: AIME, recording: Recording) -> Counts | None:
    """The foreground of the frames that the tokenizer draws; None where no scene is known."""
    frames, masks = recording.frames, recording.masks
    scene = find_scene(frames.cpu(), None if masks is None else masks.cpu(), model.baseline_image.cpu()).images
    if scene is None:
        return None
    parts: list[Sequence[Tensor]] = []
    for clip, behind in enumerate(scene.to(frames.device)):
        codes = model.tokenizer.quantizer.lookup(recording.tokens[clip])
        true = differs(to_unit(frames[clip]), behind) if masks is None else masks[clip] > 0
        parts.append(count_pixels(differs(model.redraw(codes[None])[0], behind), true))
    return Counts(*(torch.stack(field) for field in zip(*parts, strict=True)))
