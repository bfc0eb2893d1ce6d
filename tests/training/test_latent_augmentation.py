"""Latent augmentation: only the static component of a clip shifts, by one vector for all frames."""

from __future__ import annotations

import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aime.training.latent_augmentation import STATIC_RATIO, shift_static_latents, static_projection

CLIPS, LENGTH, STILL, MOVING = 200, 12, 2, 3


def latents(seed: int = 0) -> Tensor:
    """Two numbers that stand still in a clip and three that are new in every frame."""
    noise = torch.Generator().manual_seed(seed)
    still = torch.randn(CLIPS, 1, STILL, generator=noise).expand(-1, LENGTH, -1)
    return torch.cat([still, torch.randn(CLIPS, LENGTH, MOVING, generator=noise)], dim=-1)


def all_valid(batch: int = CLIPS) -> Tensor:
    return torch.ones(batch, LENGTH, dtype=torch.bool)


def part_of(means: Tensor, std: float = 0.1) -> Tensor:
    return static_projection(means, torch.full_like(means, std), all_valid(len(means)))


def test_what_stands_still_is_kept_and_what_moves_is_not() -> None:
    expected = torch.diag(torch.tensor([1.0] * STILL + [0.0] * MOVING))
    torch.testing.assert_close(part_of(latents()), expected, atol=0.05, rtol=0)


def test_it_finds_what_stands_still_in_any_mixture_of_latents() -> None:
    mixing = torch.randn(5, 5, generator=torch.Generator().manual_seed(3)).double()
    mixed = part_of((latents().double() @ mixing).float(), std=1e-4).double()
    alone = part_of(latents(), std=1e-4).double()
    torch.testing.assert_close(mixed, torch.linalg.inv(mixing) @ alone @ mixing, atol=1e-3, rtol=1e-3)


def test_it_is_that_of_the_generalised_eigenvectors() -> None:
    means = latents() @ torch.randn(5, 5, generator=torch.Generator().manual_seed(4))
    stds = 0.1 + torch.rand(means.shape, generator=torch.Generator().manual_seed(5))
    valid = all_valid()
    valid[::3, 7:] = False
    valid[0] = False
    clips = [(mean[rows].double(), std[rows].double()) for mean, std, rows in zip(means, stds, valid, strict=True)][1:]
    frames = sum(len(mean) for mean, _ in clips)
    within = sum((mean - mean.mean(0)).mT @ (mean - mean.mean(0)) + (std**2).sum(0).diag() for mean, std in clips)
    between = torch.stack([mean.mean(0) for mean, _ in clips]).mT.cov(correction=0)
    scatter = (within / frames).numpy()
    ratios, vectors = scipy.linalg.eigh(between.numpy(), scatter)
    kept = ratios**4 / (ratios**4 + STATIC_RATIO**4)
    expected = torch.from_numpy((vectors * kept) @ vectors.T @ scatter).float()
    torch.testing.assert_close(static_projection(means, stds, valid), expected, atol=1e-5, rtol=1e-4)


def test_nothing_stands_still_where_nothing_was_seen() -> None:
    assert not static_projection(latents(), torch.ones(CLIPS, LENGTH, 5), ~all_valid()).any()


@given(st.integers(0, 100), st.sampled_from([0.0, 0.3, 1.0]))
def test_a_moved_clip_goes_part_of_the_way_to_another_in_what_stands_still(seed: int, share: float) -> None:
    torch.manual_seed(seed)
    given_latents, still = latents(seed)[:20], torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    moved, rows = shift_static_latents(given_latents, all_valid(20), still, share)
    step = moved - given_latents
    assert rows.float().mean() == share if share in (0.0, 1.0) else 0 < rows.sum() < 20
    assert not step[~rows].any() and not step[..., STILL:].any()
    torch.testing.assert_close(step, step[:, :1].expand_as(step), atol=1e-6, rtol=0)
    low, high = given_latents[..., :STILL].amin((0, 1)), given_latents[..., :STILL].amax((0, 1))
    assert (moved[..., :STILL] >= low - 1e-5).all() and (moved[..., :STILL] <= high + 1e-5).all()
    assert share == 0 or step.any()


def test_padding_has_no_say_in_where_a_clip_goes() -> None:
    clips, valid = latents()[:6], all_valid(6)
    valid[:, 8:] = False
    padded = torch.where(valid[..., None], clips, 100.0)
    torch.manual_seed(0)
    one = shift_static_latents(clips, valid, torch.eye(5), 1.0).latents
    torch.manual_seed(0)
    other = shift_static_latents(padded, valid, torch.eye(5), 1.0).latents
    torch.testing.assert_close(one[:, :8], other[:, :8])
