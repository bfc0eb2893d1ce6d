"""Foreground F1: whether a predicted frame has the body, all of it, and where it belongs.

The foreground of a frame is what differs from the scene without the body. Squared errors are dominated by the area of
the scene: a prediction without a thin pole scores nearly the same PSNR, and half the recall.

The scene is the median over time of each pixel, not the mean image: a mean holds a ghost of the body wherever the body
often is, a median does not as long as the body covers the pixel less than half of the time. Where masks are known, the
median is of the unmasked values alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from aime.primitives.pixels import to_unit

THRESHOLD = 0.1
"""A pixel is foreground if it differs from the scene by more: root mean square over its colours, in [0, 1].

That is 20 dB. What a model draws of a still scene has 27 dB and more, so that a slightly wrong scene is no foreground;
noise of 30 dB passes the threshold in one pixel of a million. A thin part with a contrast of 0.4 passes it where it
covers a quarter of the pixel.
"""

SAMPLED = 256
"""Frames that the scene is estimated from, at equal distances through all clips."""

LARGEST_SHARE = 0.25
"""Share of the pixels up to which differing pixels are taken for a body in front of a still scene."""

LEAST_AGREEMENT = 0.5
"""F1 of the differing pixels of true frames against their masks, below which the scene is no still one."""


class Scene(NamedTuple):
    """The scene of B clips without the body."""

    images: Float[Tensor, "B 3 H W"] | None
    """In [0, 1]; None where it cannot be estimated."""
    title: str
    """What the scene was estimated from, or why there is none."""


class Counts(NamedTuple):
    """Pixels of each frame of B clips; NaN where no scene is known."""

    hits: Float[Tensor, "B F"]
    """Foreground in both."""
    found: Float[Tensor, "B F"]
    """Foreground in the scored frame."""
    true: Float[Tensor, "B F"]
    """Foreground in the true frame."""


class ForegroundCounts(NamedTuple):
    """Counts of all kinds of frames, of B clips."""

    likeliest: Counts
    """The most likely future."""
    samples: Counts
    """Summed over the sampled futures."""
    persistence: Counts
    """The last frame of the context."""
    reconstruction: Counts
    true_frames: Counts
    """The true frames by their differing pixels: not equal to `true` where masks are known."""
    share: Float[Tensor, "B 1"]
    """Of the true foreground in all pixels."""


def find_scene(
    frames: UInt8[Tensor, "B T 3 H W"],
    masks: UInt8[Tensor, "B T H W"] | None = None,
    fill: Float[Tensor, "3 H W"] | None = None,
) -> Scene:
    """The scene behind the body: one for all clips where that fits them, else one for each clip.

    A clip's own median would take a body that stands still for part of the scene, so that the median of all clips comes
    first.

    Args:
        frames: 0 to 255.
        masks: 0 on the background, if known.
        fill: in [0, 1], for pixels that are masked in every frame; needed with masks.
    """
    clips, length = frames.shape[:2]
    chosen = torch.linspace(0, clips * length - 1, min(SAMPLED, clips * length)).long()
    shown, body = frames.flatten(0, 1)[chosen], None if masks is None else masks.flatten(0, 1)[chosen] > 0
    shared = _median(shown, body, fill)
    known = "pixels outside the masks" if masks is not None else "frames"
    if _fits(shown, shared, body):
        return Scene(shared.expand(clips, -1, -1, -1), f"the median of the {known} of all clips")
    each = torch.stack(
        [_median(clip, None if masks is None else masks[row] > 0, fill) for row, clip in enumerate(frames)]
    )
    if _fits(shown, each[chosen // length], body):
        return Scene(each, f"the median of the {known} of each clip")
    return Scene(None, "none: the scene moves, or nothing moves in it")


def count_foreground(
    scene: Float[Tensor, "B 3 H W"],
    truth: Bool[Tensor, "B F H W"],
    likeliest: Float[Tensor, "B F 3 H W"],
    futures: Float[Tensor, "B S F 3 H W"],
    last: Float[Tensor, "B 3 H W"],
    reconstructions: Float[Tensor, "B F 3 H W"],
    frames: Float[Tensor, "B F 3 H W"],
) -> ForegroundCounts:
    """Compare the foreground of all kinds of frames with the true one.

    Args:
        scene: without the body.
        truth: the foreground of the true frames, by masks or by `differs`.
        likeliest: the most likely future.
        futures: sampled ones.
        last: the last frame of the context.
        reconstructions: of the true frames.
        frames: the true ones.
    """
    behind = scene[:, None]
    # clip by clip, or the differences of all samples would double the memory of a batch
    of_samples = [
        count_pixels(differs(own, image), true) for own, image, true in zip(futures, scene, truth, strict=True)
    ]
    return ForegroundCounts(
        likeliest=count_pixels(differs(likeliest, behind), truth),
        samples=Counts(*(torch.stack(field).sum(dim=1) for field in zip(*of_samples, strict=True))),
        persistence=count_pixels(differs(last[:, None], behind), truth),
        reconstruction=count_pixels(differs(reconstructions, behind), truth),
        true_frames=count_pixels(differs(frames, behind), truth),
        share=truth.float().mean(dim=(1, 2, 3))[:, None],
    )


def unknown_foreground(unknown: Float[Tensor, "B F"]) -> ForegroundCounts:
    """Of clips whose scene is not known."""
    counts = Counts(unknown, unknown, unknown)
    return ForegroundCounts(counts, counts, counts, counts, counts, share=unknown[:, :1])


def differs(frames: Float[Tensor, "*N 3 H W"], scene: Float[Tensor, "*#N 3 H W"]) -> Bool[Tensor, "*N H W"]:
    """Which pixels are foreground; both in [0, 1]."""
    return (frames - scene).square().mean(dim=-3) > THRESHOLD**2


def count_pixels(found: Bool[Tensor, "*N H W"], truth: Bool[Tensor, "*#N H W"]) -> Counts:
    """Foreground pixels of frames, of their true ones, and of both."""
    found, truth = torch.broadcast_tensors(found, truth)
    return Counts(*(each.sum(dim=(-2, -1)).float() for each in (found & truth, found, truth)))


def _fits(frames: UInt8[Tensor, "N 3 H W"], scene: Tensor, body: Bool[Tensor, "N H W"] | None) -> bool:
    """Whether the pixels that differ from the scene can be the body."""
    found = differs(to_unit(frames), scene)
    if body is None:
        return 0 < float(found.float().mean()) <= LARGEST_SHARE
    hits, differing, true = (float(each.sum()) for each in count_pixels(found, body))
    return bool(differing + true) and 2 * hits / (differing + true) >= LEAST_AGREEMENT


def _median(
    frames: UInt8[Tensor, "N 3 H W"], body: Bool[Tensor, "N H W"] | None, fill: Float[Tensor, "3 H W"] | None
) -> Float[Tensor, "3 H W"]:
    """The median of each value over the frames in which its pixel is not of the body; the lower one of two."""
    if body is None:
        return to_unit(frames.median(dim=0).values)
    assert fill is not None, "pixels that the body covers in every frame need a value"
    last = frames.to(torch.int16).masked_fill(body[:, None], 256).sort(dim=0).values
    free: Int64[Tensor, "1 H W"] = rearrange((~body).sum(dim=0), "h w -> 1 h w")
    middle = last.gather(0, ((free - 1) // 2).clamp_min(0).expand(1, 3, -1, -1))[0]
    return torch.where(free > 0, to_unit(middle), fill.to(middle.device))
