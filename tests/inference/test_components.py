"""Frames grouped by component, on a mixture of which it is known who explains what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from tests.inference.worlds import drifting_clips
from tests.models import small_config

from aime.inference.components import find_components, group_frames
from aime.inference.overlays import PALETTE
from aime.inference.render import FAINT
from aime.inference.strips import colours_by, group_strips
from aime.primitives.distributions import GaussianMixture
from aime.world_model.model import AIME


def numbered_frames(clips: int, length: int) -> np.ndarray:
    """Every pixel of a frame is 20 clip + time."""
    values = 20 * np.arange(clips)[:, None] + np.arange(length)
    return np.broadcast_to(values[..., None, None, None].astype(np.uint8), (clips, length, 2, 2, 3))


def test_the_heaviest_components_come_first_with_the_frames_they_explain_best() -> None:
    responsibilities = np.zeros((2, 6, 3))
    responsibilities[..., 2] = [[0.9, 0.8, 0.7, 0.6, 0.95, 1.0], [0.5, 0.6, 0.7, 0.5, 0.99, 0.5]]
    responsibilities[..., 0] = 1 - responsibilities[..., 2]
    even = np.full((2, 6, 3), 1 / 3)
    found = group_frames(numbered_frames(2, 6), responsibilities, even, examples=3, apart=2)
    assert [group.component for group in found.groups] == [2, 0], "component 1 explains nothing"
    first = found.groups[0]
    # (0,4) is too near to (0,5)
    assert first.frames[:, 0, 0, 0].tolist() == [5, 24, 0]
    assert first.responsibilities.tolist() == [1.0, 0.99, 0.9]
    assert first.share == pytest.approx(responsibilities[..., 2].mean())
    assert found.frames == 12
    assert found.shares.sum() == pytest.approx(1)


def test_the_effective_number_counts_even_shares() -> None:
    responsibilities = np.zeros((1, 4, 5))
    responsibilities[0, [0, 1, 2, 3], [0, 0, 3, 3]] = 1
    found = group_frames(numbered_frames(1, 4), responsibilities, responsibilities)
    assert found.effective == pytest.approx(2)
    assert set(found.ranks[[0, 3]].tolist()) == {0, 1}


def test_frames_are_explained_by_the_component_nearest_to_their_latent() -> None:
    clips = drifting_clips(3, 5)
    # clip 0 lies at component 1, the other two at component 0; the third component is far off
    latents = torch.tensor([4.0, 0.0, 0.1])[:, None, None].expand(3, 5, 1)
    mixture = GaussianMixture(
        torch.full((3, 5, 3), 1 / 3).log(), torch.tensor([0.0, 4.0, 90.0])[:, None].expand(3, 5, 3, 1),
        torch.ones(3, 5, 3, 1),
    )  # fmt: skip
    output = SimpleNamespace(prior=SimpleNamespace(mixture=mixture), posterior=SimpleNamespace(mean=latents))
    model = SimpleNamespace(device=torch.device("cpu"), config=small_config(), forward_sequence=lambda *_: output)
    found = find_components(cast(AIME, model), clips)
    assert [group.component for group in found.groups] == [0, 1]
    assert found.groups[1].share == pytest.approx(1 / 3, abs=1e-3)
    assert found.frames == 3 * 4, "the first frame of a clip is left out"
    own = clips.frames[0, 1:].permute(0, 2, 3, 1).numpy()
    assert (found.groups[1].frames[0] == own[0]).all()
    assert found.effective == pytest.approx(np.exp(-(1 / 3) * np.log(1 / 3) - (2 / 3) * np.log(2 / 3)), rel=1e-2)


def test_a_row_names_its_component_and_a_colour_is_a_component_s_own() -> None:
    responsibilities = np.zeros((1, 10, 12))
    responsibilities[0, :, 7] = 0.75
    responsibilities[0, :, 4] = 0.25
    found = group_frames(numbered_frames(1, 10), responsibilities, responsibilities, apart=1)
    colour = colours_by(found.ranks)
    rows = group_strips(found, colour)
    assert [row.label for row in rows] == ["component 7\n75 % of frames", "component 4\n25 % of frames"]
    notes = rows[0].notes
    assert notes is not None and notes[0] is not None
    assert notes[0] == ("75 %", PALETTE[0], 0.75)
    rare = int(np.argmax(found.ranks))
    assert (colour(7), colour(4), colour(rare)) == (PALETTE[0], PALETTE[1], FAINT)
