"""Foreground F1: what it sees that PSNR does not, the scene behind the body, and the counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.inference.carts import SIZE, carts, driving, scenery
from torch import Tensor

from aime.inference.foreground import ForegroundCounts, count_foreground, differs, find_scene
from aime.inference.metrics import frame_mse, psnr

B, S, CONTEXT, AHEAD = 3, 2, 2, 10


def judged(dream: Tensor, frames: Tensor, masks: Tensor | None = None) -> ForegroundCounts:
    """Counts of a dream of the frames after the context; the samples are the same dream."""
    scene = find_scene(frames, masks, torch.zeros(3, SIZE, SIZE)).images
    assert scene is not None
    values = frames.float() / 255
    truth = values[:, CONTEXT:]
    true = differs(truth, scene[:, None]) if masks is None else masks[:, CONTEXT:] > 0
    futures = dream[:, None].expand(-1, S, -1, -1, -1, -1)
    return count_foreground(scene, true, dream, futures, values[:, CONTEXT - 1], truth, truth)


def f1(counts: ForegroundCounts, name: str) -> float:
    hits, found, true = (float(each.sum()) for each in getattr(counts, name))
    return 2 * hits / (found + true)


@pytest.mark.parametrize("masked", [False, True])
def test_a_lost_pole_costs_f1_and_hardly_psnr(masked: bool) -> None:
    places = driving(B, CONTEXT + AHEAD)
    frames, masks = carts(places)
    truth = frames[:, CONTEXT:].float() / 255
    lost = carts(places, pole=False).frames[:, CONTEXT:].float() / 255
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    whole = truth + 0.03 * noise

    decibels = [float(psnr(frame_mse(dream, truth)).mean()) for dream in (whole, lost)]
    assert abs(decibels[0] - decibels[1]) < 2
    scores = [f1(judged(dream, frames, masks if masked else None), "likeliest") for dream in (whole, lost)]
    assert scores[0] > 0.97
    # 14 of 46 pixels are lost
    assert scores[1] == pytest.approx(2 * 32 / (32 + 46), abs=0.01)


def test_every_kind_of_frame_is_counted_against_the_true_foreground() -> None:
    places = driving(B, CONTEXT + AHEAD)
    frames, masks = carts(places)
    values = frames.float() / 255
    dream = carts(places + 2).frames[:, CONTEXT:].float() / 255
    counts = judged(dream, frames, masks)
    true = masks[:, CONTEXT:].numpy() > 0
    shown = {
        "likeliest": dream,
        "persistence": values[:, CONTEXT - 1 : CONTEXT].expand_as(dream),
        "reconstruction": values[:, CONTEXT:],
    }
    for name, each in shown.items():
        found = np.linalg.norm(each - scenery(), axis=2) / np.sqrt(3) > 0.1
        expected = [(found & true).sum((2, 3)), found.sum((2, 3)), true.sum((2, 3))]
        for ours, theirs in zip(getattr(counts, name), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for one, several in zip(counts.likeliest, counts.samples, strict=True):
        torch.testing.assert_close(several, S * one)
    assert f1(counts, "true_frames") == 1
    torch.testing.assert_close(counts.share, torch.full((B, 1), 46 / SIZE**2))


def test_the_scene_is_that_of_all_clips_so_that_a_still_body_is_foreground() -> None:
    places = driving(6, 12)
    places[0] = 20
    frames, masks = carts(places)
    scene = find_scene(frames)
    assert scene.title == "the median of the frames of all clips"
    assert scene.images is not None
    assert (scene.images - scenery()).abs().max() < 1 / 255
    found = differs(frames[0].float() / 255, scene.images[0])
    torch.testing.assert_close(found, masks[0] > 0)


def test_clips_of_different_scenes_have_each_their_own() -> None:
    scenes = torch.stack([scenery(), 1 - scenery(1)])
    frames, masks = carts(driving(2, 24), scene=scenes[:, None])
    scene = find_scene(frames)
    assert scene.title == "the median of the frames of each clip"
    assert scene.images is not None
    torch.testing.assert_close(differs(frames.float() / 255, scene.images[:, None]), masks > 0)


@pytest.mark.parametrize("masked", [False, True])
def test_a_scene_that_moves_has_no_foreground_score(masked: bool) -> None:
    moving = torch.stack([torch.rand(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))] * 2)
    frames, masks = carts(driving(2, 12), scene=moving)
    scene = find_scene(frames, masks if masked else None, torch.zeros(3, SIZE, SIZE))
    assert scene.images is None
    assert scene.title.startswith("none: the scene moves")


def test_masks_tell_the_scene_where_the_body_mostly_is() -> None:
    places = torch.full((2, 12), 20)
    places[:, :3] = 40
    frames, masks = carts(places)
    assert find_scene(frames, None).images is not None, "a quarter of the frames is foreground, at one of two places"
    scene = find_scene(frames, masks, torch.ones(3, SIZE, SIZE)).images
    assert scene is not None
    assert (scene - scenery()).abs().max() < 1 / 255
    # a pixel that is never free takes the value that is given for it
    frames, masks = carts(torch.full((2, 12), 20))
    scene = find_scene(frames, masks, torch.ones(3, SIZE, SIZE)).images
    assert scene is not None
    assert bool((scene[:, :, 31, 22] == 1).all())
