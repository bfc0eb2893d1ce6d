"""Figures against masks and tokens, on maps, logits and histograms made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.inference.carts import carts, driving, scenery
from tests.inference.inspection.test_chain import LENGTH, SEEDS, random_clips, random_masks
from torch import Tensor

from aime.attention.schema import Attention
from aime.inference.inspection.chain import Recording
from aime.inference.inspection.figures import mask_figures, mean, ratio, token_figures
from aime.inference.inspection.tokens import cross_entropy, histogram_nats
from aime.inference.mask_scores import score_on_grid
from aime.world_model.model import AIME

EPISODES = np.array([0, 1, 1])


def test_a_ratio_is_that_of_sums_over_the_frames_of_which_both_are_known() -> None:
    above = torch.tensor([[1.0, 2, math.nan], [4, 5, 6], [7, 8, 9]])
    below = torch.tensor([[2.0, 2, 2], [2, 2, math.nan], [2, 2, 2]])
    found = ratio(above, below, EPISODES)
    assert found.mean == pytest.approx((1 + 2 + 4 + 5 + 7 + 8 + 9) / 14)
    assert found.low < found.mean < found.high
    assert mean(above, EPISODES).mean == pytest.approx((1 + 2 + 4 + 5 + 6 + 7 + 8 + 9) / 8)
    assert math.isnan(ratio(above, torch.full_like(above, math.nan), EPISODES).mean)


def test_nats_of_logits() -> None:
    # two frames of two cells and three codes: a sure code, and an even choice
    logits = torch.tensor([[[30.0, 0, 0], [0, 0, 0]], [[0, 30, 0], [0, 0, 0]]])
    found = cross_entropy(logits, torch.tensor([[[0, 1]], [[0, 2]]]))
    np.testing.assert_allclose(found, [math.log(3), 30 + math.log(3)], rtol=1e-6)


def test_a_histogram_is_of_other_episodes_and_smoothed_by_one_count() -> None:
    # two cells; the first has code 0 always, the second what the episode says
    tokens = torch.zeros(3, 4, 1, 2, dtype=torch.int64)
    tokens[1:, :, 0, 1] = 1
    tokens[2, 0, 0, 1] = 2
    found = histogram_nats(tokens, torch.from_numpy(EPISODES), codes=5)
    assert found is not None
    # the first clip is judged by the eight frames of the other two, those by its four
    first = -math.log((8 + 0.2) / 9) - math.log(0.2 / 9)
    other = -math.log((4 + 0.2) / 5) - math.log(0.2 / 5)
    np.testing.assert_allclose(found, [[first] * 4, [other] * 4, [other] * 4], rtol=1e-6)
    assert histogram_nats(tokens, torch.zeros(3, dtype=torch.int64), codes=5) is None


def test_tokens_are_read_back_as_in_training(model: AIME, recording: Recording) -> None:
    found = token_figures(model, recording, EPISODES)
    sight = model.perceive(random_clips().frames)
    logits = model.perceiver.token_logits(sight.percept.latents.flatten(0, 1))
    wanted = -logits.log_softmax(-1).gather(-1, sight.tokens.indices.flatten(0, 1).flatten(1)[..., None]).sum((1, 2))
    assert found["token_nats"].mean == pytest.approx(wanted.mean().item(), rel=1e-5)
    assert found["token_ratio"].mean == pytest.approx(found["token_nats"].mean / found["histogram_nats"].mean)
    used = np.bincount(recording.tokens.flatten().numpy())
    assert found["code_perplexity"].mean == pytest.approx(math.exp(stats.entropy(used)))
    assert "token_f1" not in found, "noise has no scene"
    assert "token_ratio" not in token_figures(model, recording, np.zeros(3, int))
    assert token_figures(model, recording._replace(token_nats=None), EPISODES) == {}


def test_the_foreground_of_frames_drawn_from_tokens(
    model: AIME, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = carts(driving(len(SEEDS), LENGTH))
    seen = recording._replace(frames=drawn.frames, masks=drawn.masks)
    monkeypatch.setattr(model, "baseline_image", torch.full(drawn.frames.shape[2:], 0.5))
    told: list[Tensor] = []

    def redraw(shown: Tensor) -> Tensor:
        told.append(shown)
        return shown[None]

    # exact frames, then frames without the pole, then the empty scene
    bare = carts(driving(len(SEEDS), LENGTH), pole=False).frames
    empty = scenery().expand(*bare.shape[:2], -1, -1, -1)
    missing = 14 / (14 + 32)
    for frames, wanted in ((drawn.frames / 255, 1.0), (bare / 255, 2 * (1 - missing) / (2 - missing)), (empty, 0.0)):
        clips = iter(frames)
        monkeypatch.setattr(type(model), "redraw", lambda self, codes, clips=clips: redraw(next(clips)))
        assert token_figures(model, seen, EPISODES)["token_f1"].mean == pytest.approx(wanted, abs=1e-6)
    assert len(told) == 3 * len(SEEDS)


def test_slots_and_attention_on_the_cells_of_the_body() -> None:
    # a grid of 4 x 4 cells of 4 pixels; one pixel of each instance makes its cell the body's
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.uint8)
    masks[0, 0, 0, 0], masks[0, 0, 3, 7] = 1, 2
    slots = torch.zeros(4, 4, dtype=torch.int64)
    slots[0, :3], slots[3, 3] = 1, 2
    maps = torch.nn.functional.one_hot(slots, 3).permute(2, 0, 1).float().expand(1, 2, 3, 4, 4)
    fused = torch.zeros(1, 2, 4, 4)
    fused[..., 1, 1], fused[..., 0, 1], fused[..., 3, 0] = 0.5, 0.2, 0.3
    unused = dict.fromkeys(Attention._fields, torch.zeros(()))
    found = score_on_grid(Attention(**(unused | {"slot_maps": maps, "fused": fused})), masks)
    assert float(found.iou[0, 0]) == pytest.approx(2 / 3)
    # two cells and their neighbours: the left upper 2 x 3
    assert float(found.attention[0, 0]) == pytest.approx(0.7)
    assert float(found.area[0, 0]) == pytest.approx(6 / 16)
    assert all(bool(each[0, 1].isnan()) for each in found), "no body is shown"


def test_figures_of_masks_are_those_of_the_pass(model: AIME, recording: Recording) -> None:
    found = mask_figures(model, recording, EPISODES)
    clips = random_clips()
    attention = model.forward_sequence(clips.frames, clips.actions, clips.action_valid).attention
    wanted = score_on_grid(attention, random_masks())
    assert found["slot_iou"].mean == pytest.approx(float(wanted.iou.nanmean()), rel=1e-4)
    assert found["attention_ratio"].mean == pytest.approx(
        found["attention_mass"].mean / found["attention_area"].mean, rel=1e-6
    )
    assert mask_figures(model, recording._replace(masks=None), EPISODES) == {}
    even = AIME(replace(model.config, attention=replace(model.config.attention, kind="uniform"))).eval()
    assert mask_figures(even, recording, EPISODES) == {}
