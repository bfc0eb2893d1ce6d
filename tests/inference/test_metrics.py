"""Metrics against independent references: torchmetrics, brute force, and what is known of calibrated samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from aime.inference import metrics
from aime.primitives.pixels import GREY_LEVEL


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_psnr_is_that_of_each_frame(generator: torch.Generator) -> None:
    ours, theirs = torch.rand(2, 6, 3, 16, 16, generator=generator)
    expected = peak_signal_noise_ratio(ours, theirs, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(metrics.psnr(metrics.frame_mse(ours, theirs)), expected)


def test_psnr_of_a_known_error_and_of_none() -> None:
    assert metrics.psnr(torch.tensor(0.01)).item() == pytest.approx(20)
    assert metrics.psnr(torch.tensor(0.0)).item() == pytest.approx(metrics.PSNR_CEILING)


def test_ssim_is_that_of_each_frame_alone(generator: torch.Generator) -> None:
    ours, theirs = torch.rand(2, 70, 3, 16, 16, generator=generator)
    scores = metrics.ssim(ours, theirs)
    assert scores.shape == (70,)
    for frame in (0, 64, 69):
        alone = structural_similarity_index_measure(ours[frame, None], theirs[frame, None], data_range=1.0)
        assert isinstance(alone, torch.Tensor)
        assert scores[frame].item() == pytest.approx(alone.item(), abs=1e-5)
    assert metrics.ssim(ours[:1], ours[:1]).item() == pytest.approx(1)


def test_skill_takes_the_better_baseline_of_each_horizon() -> None:
    skill = metrics.skill(torch.tensor([1.0, 4.0, 0.0]), torch.tensor([2.0, 8.0, 3.0]), torch.tensor([4.0, 2.0, 3.0]))
    assert skill.tolist() == [0.5, -1.0, 1.0]


def test_skill_is_undefined_beside_an_exact_baseline() -> None:
    assert metrics.skill(torch.zeros(1), torch.zeros(1), torch.ones(1)).isnan().all()


def brute_force_energy_score(samples: torch.Tensor, truth: torch.Tensor) -> float:
    """Of one frame, from the definition: samples `[S,3,H,W]`."""
    count = len(samples)
    distance = sum((one - truth).square().mean().sqrt().item() for one in samples) / count
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    spread = sum((samples[a] - samples[b]).square().mean().sqrt().item() for a, b in pairs) / max(len(pairs), 1)
    return distance - spread / 2


@given(samples=st.integers(1, 5), frames=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_energy_score_against_its_definition(samples: int, frames: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    futures = torch.rand(2, samples, frames, 3, 4, 4, generator=generator)
    truth = torch.rand(2, frames, 3, 4, 4, generator=generator)
    scores = metrics.energy_score(futures, truth)
    assert scores.shape == (2, frames)
    for clip in range(2):
        for frame in range(frames):
            expected = brute_force_energy_score(futures[clip, :, frame], truth[clip, frame])
            assert scores[clip, frame].item() == pytest.approx(expected, abs=1e-5)


def test_energy_score_prefers_the_true_spread(generator: torch.Generator) -> None:
    """A proper score: too narrow and too wide are both worse than right, on the average over truths."""
    truth = torch.randn(300, 1, 3, 2, 2, generator=generator)
    noise = torch.randn(300, 16, 1, 3, 2, 2, generator=generator)
    right, narrow, wide = (metrics.energy_score(scale * noise, truth).mean().item() for scale in (1.0, 0.5, 2.0))
    assert right < narrow
    assert right < wide


@pytest.mark.parametrize("samples", [9, 16, 31])
def test_coverage_of_calibrated_samples_is_nominal_for_any_number(samples: int, generator: torch.Generator) -> None:
    """Truth and samples from the same Gaussian: 80 %, where naive quantiles of 16 samples would give 71 %."""
    futures = torch.randn(4, samples, 2, 3, 32, 32, generator=generator)
    truth = torch.randn(4, 2, 3, 32, 32, generator=generator)
    covered = metrics.coverage(futures, truth)
    assert covered is not None
    assert covered.everywhere.shape == (4, 2)
    # interpolating between order statistics is exact for a uniform distribution, and nearly for this one
    assert covered.everywhere.mean().item() == pytest.approx(0.8, abs=0.015)


def test_the_interval_lies_between_order_statistics(generator: torch.Generator) -> None:
    """Against numpy's quantiles of the same definition, by the truths that just fall inside."""
    futures = torch.rand(1, 16, 1, 3, 8, 8, generator=generator)
    low, high = np.quantile(futures[0, :, 0].numpy(), [0.1, 0.9], axis=0, method="weibull")
    nudge = GREY_LEVEL / 2
    for bound, outwards in ((low, -1), (high, 1)):
        for distance, inside in ((nudge - 1e-5, 1.0), (nudge + 1e-5, 0.0)):
            truth = torch.from_numpy(bound + outwards * distance).float()[None, None]
            covered = metrics.coverage(futures, truth)
            assert covered is not None
            assert covered.everywhere.item() == inside


def test_coverage_tells_the_overconfident(generator: torch.Generator) -> None:
    futures = 0.5 * torch.randn(2, 16, 1, 3, 32, 32, generator=generator)
    truth = torch.randn(2, 1, 3, 32, 32, generator=generator)
    covered = metrics.coverage(futures, truth)
    assert covered is not None
    assert covered.everywhere.mean().item() < 0.55


def test_coverage_forgives_half_a_grey_level_and_counts_the_uncertain_apart() -> None:
    futures = torch.full((1, 16, 1, 3, 2, 2), 0.5)
    futures[:, :, :, 0] = torch.linspace(0, 1, 16)[None, :, None, None, None]
    truth = torch.full((1, 1, 3, 2, 2), 0.5 + 0.4 / 255)
    truth[:, :, 2] = 0.5 + 0.6 / 255
    covered = metrics.coverage(futures, truth)
    assert covered is not None
    # of three colours the first is uncertain and held, the second is held by the rounding, the third is not
    assert covered.everywhere.item() == pytest.approx(2 / 3)
    assert covered.uncertain.item() == 4
    assert covered.held.item() == 4


def test_coverage_needs_nine_samples() -> None:
    assert metrics.coverage(torch.zeros(1, 8, 1, 3, 2, 2), torch.zeros(1, 1, 3, 2, 2)) is None


def test_best_of_follows_one_sample_through_time() -> None:
    mse = torch.tensor([[[1.0, 1.0], [0.0, 3.0]], [[5.0, 5.0], [2.0, 4.0]]])
    assert metrics.best_of(mse).tolist() == [[1.0, 1.0], [2.0, 4.0]]


@given(count=st.integers(1, 20), scale=st.floats(0.1, 100))
def test_perplexity_of_even_use_is_the_number(count: int, scale: float) -> None:
    weights = torch.cat([torch.full((count,), scale), torch.zeros(3)])
    assert metrics.perplexity(weights) == pytest.approx(count)
    assert not math.isnan(metrics.perplexity(weights))
