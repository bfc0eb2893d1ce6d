from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.io.collect.distractors import PERIOD, Blobs, Clouds, Distractor, Stripes, blend, make_distractor


def make(seed: int, moving: bool = True, size: int = 32) -> Distractor:
    return Distractor(np.random.default_rng(seed), size, moving)


@settings(deadline=None)
@given(st.sampled_from([Clouds, Blobs, Stripes]), st.integers(0, 2**32), st.floats(0.0, 2 * np.pi))
def test_patterns_stay_within_0_and_1_and_repeat(
    kind: type[Clouds] | type[Blobs] | type[Stripes], seed: int, phase: float
) -> None:
    pattern = kind(np.random.default_rng(seed), 12)
    field = pattern(phase)
    assert field.shape == (12, 12)
    assert field.min() >= 0 and field.max() <= 1
    np.testing.assert_allclose(pattern(phase + 2 * np.pi), field, atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_still_picture_is_still_and_a_film_moves_and_loops(seed: int) -> None:
    still, film = make(seed, moving=False), make(seed)
    np.testing.assert_array_equal(still.frame(0), still.frame(17))
    np.testing.assert_array_equal(still.frame(0), film.frame(0))
    assert PERIOD[0] <= film.period <= PERIOD[1]
    np.testing.assert_allclose(film.frame(film.period), film.frame(0), atol=1)
    assert any(not np.array_equal(film.frame(0), film.frame(step)) for step in (5, 11, 19))


def test_neighbouring_frames_of_a_film_are_alike() -> None:
    for seed in range(10):
        film = make(seed)
        frames = [film.frame(step).astype(float) for step in range(30)]
        step = np.mean([np.abs(after - before).mean() for before, after in pairwise(frames)])
        assert step < 20


def test_episodes_get_different_pictures() -> None:
    pictures = [make(seed).frame(0).astype(float) for seed in range(12)]
    differences = [np.abs(a - b).mean() for index, a in enumerate(pictures) for b in pictures[:index]]
    assert min(differences) > 3
    assert min(picture.std() for picture in pictures) > 3
    np.testing.assert_array_equal(make(3).frame(9), make(3).frame(9))


def test_none_is_no_distractor() -> None:
    generator = np.random.default_rng(0)
    assert make_distractor("none", generator, 8) is None
    still, film = make_distractor("static", generator, 8), make_distractor("dynamic", generator, 8)
    assert still is not None and still.period == 0
    assert film is not None and film.period > 0


def test_blending_leaves_the_foreground_alone() -> None:
    generator = np.random.default_rng(0)
    pixels, picture = generator.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    share = np.zeros((6, 6), np.float32)
    share[:2], share[2] = 1.0, 0.5
    result = blend(pixels, picture, share)
    np.testing.assert_array_equal(result[3:], pixels[3:])
    np.testing.assert_array_equal(result[:2], picture[:2])
    middle = (pixels[2].astype(int) + picture[2].astype(int)) / 2
    np.testing.assert_allclose(result[2], middle, atol=0.5)
