"""Half of the frame hidden: which half, and the errors of maps and probes that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.inference.inspection.test_chain import SEEDS, random_clips, random_masks
from torch import Tensor

from aime.data import Clips
from aime.inference.inspection import occlusion
from aime.inference.inspection.chain import Recording, record
from aime.inference.inspection.occlusion import GREY, centre_errors, hidden_frames, hide_half, occlusion_figures
from aime.inference.inspection.probes import errors_on_frames
from aime.world_model.model import AIME

EPISODES = np.array([0, 1, 2])


@pytest.fixture(scope="module")
def clips() -> Clips:
    generator = torch.Generator().manual_seed(2)
    clips = random_clips()
    return clips._replace(states=torch.rand((*clips.frames.shape[:2], 3), generator=generator))


@pytest.fixture(scope="module")
def recording(model: AIME, clips: Clips) -> Recording:
    return record(model, clips, SEEDS, masks=random_masks())


def test_which_frames_are_hidden() -> None:
    assert hidden_frames(50) == slice(10, 15)
    assert hidden_frames(9) == slice(4, 9)
    assert hidden_frames(5) is None


def test_the_half_with_most_of_the_body_is_hidden() -> None:
    frames = torch.randint(0, 100, (3, 6, 3, 8, 8), dtype=torch.uint8)
    masks = torch.zeros(3, 6, 8, 8, dtype=torch.uint8)
    # it counts where the body is in the hidden frames, not before
    masks[0, :2, :, 0], masks[0, 2:, 3, 6:], masks[1, 2, 4, 1] = 1, 2, 1
    for known, halves in ((masks, "rll"), (None, "lrl")):
        found = hide_half(frames, known, slice(2, 4))
        for clip, half in enumerate(halves):
            hidden, seen = (slice(4), slice(4, None)) if half == "l" else (slice(4, None), slice(4))
            assert bool((found[clip, 2:4, :, :, hidden] == GREY).all())
            assert torch.equal(found[clip, 2:4, :, :, seen], frames[clip, 2:4, :, :, seen])
        assert torch.equal(found[:, :2], frames[:, :2]) and torch.equal(found[:, 4:], frames[:, 4:])


def test_the_distance_of_centres_is_in_cells() -> None:
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.uint8)
    masks[0, 0, 0:4, 8:12] = 1
    maps = torch.zeros(1, 2, 4, 4)
    maps[:, :, 3, 1], maps[:, :, 3, 3] = 0.25, 0.75
    found = centre_errors(maps, masks)
    # from column 2.5, row 3 to column 2, row 0
    assert float(found[0, 0]) == pytest.approx(math.hypot(0.5, 3))
    assert bool(found[0, 1].isnan()), "no body is shown"


def test_errors_of_changed_features_are_what_the_change_is_worth() -> None:
    random = np.random.default_rng(0)
    episodes = np.repeat(np.arange(6), 2)
    features, weights = random.normal(size=(12, 15, 4)), 0.1 * random.normal(size=(4, 2))
    states, change = torch.from_numpy(features @ weights), random.normal(size=(12, 15, 4))
    states[3, 11] = math.nan
    given = [torch.from_numpy(each) for each in (features, features + change)]
    found = errors_on_frames(given[0], given[1], states, episodes, {}, slice(10, 13))
    assert found is not None
    known = states[:, 5:].reshape(-1, 2)
    spread = known[known.isfinite().all(1)].var(0, correction=0).numpy()
    wanted = ((change @ weights) ** 2 / spread).mean(-1)[:, 10:13]
    wanted[3, 1] = math.nan
    assert float(found[0].nan_to_num().max()) < 1e-6
    np.testing.assert_allclose(found[1], wanted, rtol=1e-2)
    assert errors_on_frames(given[0], given[1], None, episodes, {}, slice(10, 13)) is None
    assert errors_on_frames(given[0], given[1], states, np.zeros(12, int), {}, slice(10, 13)) is None


def test_what_is_not_hidden_has_no_more_error(
    model: AIME, clips: Clips, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = occlusion_figures(model, clips, SEEDS, recording, EPISODES, {})
    assert found["hidden_centre_ratio"].mean == pytest.approx(
        found["hidden_centre_error"].mean / found["seen_centre_error"].mean
    )
    assert found["hidden_centre_ratio"].mean != pytest.approx(1, abs=1e-4)
    assert found["hidden_state_ratio"].mean != pytest.approx(1, abs=1e-4)
    monkeypatch.setattr(occlusion, "hide_half", lambda frames, *_: frames)
    same = occlusion_figures(model, clips, SEEDS, recording, EPISODES, {})
    assert same["hidden_centre_ratio"].mean == pytest.approx(1, abs=1e-5)
    assert same["hidden_state_ratio"].mean == pytest.approx(1, abs=1e-5)


def test_what_the_data_lacks_has_no_figure(model: AIME, clips: Clips, recording: Recording) -> None:
    bare = occlusion_figures(model, clips, SEEDS, recording._replace(masks=None), EPISODES, {})
    assert set(bare) == {"hidden_state_ratio"}
    stateless = clips._replace(states=None)
    seen: dict[str, object] = dict(occlusion_figures(model, stateless, SEEDS, recording, EPISODES, {}))
    assert set(seen) == {"hidden_centre_error", "seen_centre_error", "hidden_centre_ratio"}
    short = _first(clips, 5)
    assert occlusion_figures(model, short, SEEDS, record(model, short, SEEDS), EPISODES, {}) == {}


def _first(clips: Clips, length: int) -> Clips:
    fields = {name: getattr(clips, name) for name in clips._fields}
    return Clips(**{name: each[:, :length] if isinstance(each, Tensor) else each for name, each in fields.items()})
