"""The probe against other ways to the same numbers, and against worlds of which it is known what can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import synthetic_episode
from tests.inference.ridge import held_by_what_is_left_out, least_squares
from tests.inference.runs import write_run
from torch import Tensor

from aime.data import Dataset, open_dataset, write_shard
from aime.errors import AimeError
from aime.inference.loading import load_run
from aime.inference.probe import (
    FRAMES_AT_ONCE,
    WARM_UP,
    ProbeScores,
    StateColumns,
    collect_features,
    fit_ridge,
    is_angle,
    probe,
    r_squared,
)
from aime.world_model.model import AIME


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6), st.integers(1, 3), st.floats(1e-4, 10.0))
@settings(max_examples=25, deadline=None)
def test_the_ridge_is_that_of_least_squares(seed: int, rows: int, width: int, columns: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    inputs, test = random.normal(3, 2, (rows, width)), random.normal(size=(7, width))
    targets = random.normal(size=(rows, columns))
    one_episode = torch.zeros(rows, dtype=torch.long)
    ridge = fit_ridge(torch.from_numpy(inputs), torch.from_numpy(targets), one_episode, (penalty,))
    wanted = least_squares(inputs, targets, test, penalty)
    np.testing.assert_allclose(ridge(torch.from_numpy(test)).numpy(), wanted, atol=1e-8)


@pytest.mark.parametrize("episodes", [1, 3, 12])
def test_each_column_is_held_as_episodes_left_out_would_have_it(episodes: int) -> None:
    random = np.random.default_rng(episodes)
    episode = np.arange(60) // (60 // episodes)
    inputs, test = random.normal(size=(60, 40)), random.normal(size=(7, 40))
    clean = inputs @ random.normal(size=(40, 1))
    targets = np.concatenate([clean, clean + 8 * random.normal(size=(60, 1)), random.normal(size=(60, 1))], 1)
    ridge = fit_ridge(torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(episode))
    folds = episode % 5 if episodes > 1 else np.arange(60) // 12
    wanted, penalties = held_by_what_is_left_out(inputs, targets, test, folds)
    assert penalties[0] < penalties[2], "what is told exactly is held loosely, and noise is held tight"
    np.testing.assert_allclose(ridge(torch.from_numpy(test)).numpy(), wanted, atol=1e-6)


def test_what_only_tells_episodes_apart_is_not_learned_by_heart() -> None:
    torch.manual_seed(0)
    episode = torch.arange(120).repeat_interleave(8)
    # as under a moving film: every episode looks like nothing else, and its state is a number of its own
    features = torch.randn(120, 50, dtype=torch.float64)[episode] + 0.1 * torch.randn(960, 50, dtype=torch.float64)
    targets = torch.randn(120, 2, dtype=torch.float64)[episode]
    seen, unseen = episode < 80, episode >= 80
    found = [
        r_squared(fit_ridge(features[seen], targets[seen], episode[seen], *choice)(features[unseen]), targets[unseen])
        for choice in ([], [(1e-3,)])
    ]
    assert found[0].min() > -0.1 and found[1].max() < -0.3, found


def test_what_is_linear_is_told_and_what_stands_still_is_not_counted() -> None:
    torch.manual_seed(0)
    features = torch.randn(400, 5, dtype=torch.float64)
    targets = torch.cat([features @ torch.randn(5, 2, dtype=torch.float64), torch.ones(400, 1)], 1)
    ridge = fit_ridge(features[:300], targets[:300], torch.arange(300) // 30)
    found = r_squared(ridge(features[300:]), targets[300:])
    assert (found[:2] > 0.999).all() and found[2].isnan()


def test_an_angle_that_goes_round_has_two_columns() -> None:
    angle = torch.linspace(-3.1, 3.1, 50)
    states = torch.stack([angle / 2, angle, 100 * angle], 1)
    found = is_angle(states, {})
    assert found.tolist() == [False, True, False], "half a turn is no turn, and a place far away is no angle"
    columns = StateColumns(found)
    expected = torch.stack([angle / 2, 100 * angle, angle.cos(), angle.sin()], 1)
    np.testing.assert_allclose(columns(states), expected)
    assert columns.entries == (0, 2, 1, 1)


def test_a_velocity_as_wide_as_an_angle_is_none() -> None:
    states = torch.linspace(-3.1, 3.1, 50)[:, None].expand(-1, 4)
    assert is_angle(states, {"position": 1, "velocity": 2, "place": 1}).tolist() == [True, False, False, True]
    assert is_angle(states, {}).all(), "where nothing is named the range alone can tell"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_sums_of_episodes_give_the_score_of_any_selection(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 9, 4)
    truth, predicted = random.normal(50, 3, (2, int(lengths.sum()), 3))
    cuts = np.cumsum(lengths)[:-1]

    def sums(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(part.sum(0).tolist()) for part in np.split(values, cuts))

    off = truth - 49.0
    scores = ProbeScores((0, 1, 1), tuple(lengths.tolist()), sums(off), sums(off**2), sums((predicted - truth) ** 2))
    chosen = [0, 2, 2, 3]
    rows = np.concatenate([np.split(np.arange(len(truth)), cuts)[each] for each in chosen])
    own = r_squared(torch.from_numpy(predicted[rows]), torch.from_numpy(truth[rows]))
    counts = np.bincount(chosen, minlength=4)[None].astype(float)
    np.testing.assert_allclose(scores.r_squared(counts)[0], own)
    np.testing.assert_allclose(scores.r_squared()[0], r_squared(torch.from_numpy(predicted), torch.from_numpy(truth)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[AIME, Dataset]:
    run = write_run(tmp_path_factory.mktemp("probe"))
    return load_run(run.path)[1], open_dataset(run.data)


def direct(model: AIME, dataset: Dataset, number: int) -> Tensor:
    episode = dataset.read(number)
    frames = torch.from_numpy(episode.pixels).permute(0, 3, 1, 2)[None]
    actions = torch.from_numpy(episode.action)[None]
    with torch.no_grad():
        output = model.forward_sequence(frames, actions.nan_to_num(), ~actions.isnan().any(-1))
    return torch.cat([output.beliefs, output.latents], -1)[0]


def test_features_and_states_are_of_the_same_frames(world: tuple[AIME, Dataset]) -> None:
    model, dataset = world
    frames = collect_features(model, dataset)
    assert frames.episode.bincount().tolist() == [20 - WARM_UP] * dataset.episodes
    # the first state variable is the step, the second the episode's seed
    assert frames.states[:, 0].tolist() == list(range(WARM_UP, 20)) * dataset.episodes
    assert frames.states[:, 1].tolist() == frames.episode.tolist()
    for number in range(2):
        own = frames.features[frames.episode == number]
        torch.testing.assert_close(own.float(), direct(model, dataset, number)[WARM_UP:], atol=1e-4, rtol=1e-4)


def test_a_probe_is_judged_on_the_episodes_it_has_not_seen(world: tuple[AIME, Dataset]) -> None:
    model, dataset = world
    told: list[tuple[int, int]] = []
    scores = probe(model, dataset.select([0, 1, 2]), dataset.select([3]), 1000, lambda *progress: told.append(progress))
    seen, unseen = collect_features(model, dataset.select([0, 1, 2])), collect_features(model, dataset.select([3]))
    frames = (each.numpy() for each in (seen.features, seen.states, unseen.features, seen.episode))
    predicted, _ = held_by_what_is_left_out(*frames)
    error = ((predicted - unseen.states.numpy()) ** 2).mean(0)
    assert scores.r_squared()[0, 0] == pytest.approx(1 - error[0] / unseen.states[:, 0].numpy().var(), abs=1e-6)
    assert np.isnan(scores.r_squared()[0, 1:]).all(), "the seed and the third number stand still"
    assert told[-1] == (80, 80)


def test_few_frames_are_of_few_whole_episodes(world: tuple[AIME, Dataset]) -> None:
    model, dataset = world
    assert len(probe(model, dataset, dataset, 40).frames) == 2


def test_what_cannot_be_probed_is_one_line(
    world: tuple[AIME, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, dataset = world
    place = tmp_path_factory.mktemp("short")
    write_shard(place / "short.h5", [synthetic_episode(WARM_UP, size=32)])
    write_shard(place / "stateless.h5", [synthetic_episode(9, size=32, state_width=None)])
    with pytest.raises(AimeError, match="the longest episode has 5 frames; expected more than 5"):
        probe(model, open_dataset(place / "short.h5"), dataset, 100)
    with pytest.raises(AimeError, match=r"stateless.h5: has no state; expected"):
        probe(model, dataset, open_dataset(place / "stateless.h5"), 100)


def test_a_long_episode_is_watched_in_parts(
    world: tuple[AIME, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("long") / "long.h5"
    write_shard(place, [synthetic_episode(2 * FRAMES_AT_ONCE + 10, size=32)])
    steps = collect_features(world[0], open_dataset(place)).states[:, 0].tolist()
    assert steps == [*range(WARM_UP, FRAMES_AT_ONCE), *range(FRAMES_AT_ONCE + WARM_UP, 2 * FRAMES_AT_ONCE)]


def test_frames_whose_state_is_not_known_do_not_count(
    world: tuple[AIME, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("gaps") / "gaps.h5"
    episode = synthetic_episode(12, size=32)
    assert episode.state is not None
    state = episode.state.copy()
    state[8, 1] = np.nan
    write_shard(place, [replace(episode, state=state)])
    frames = collect_features(world[0], open_dataset(place))
    assert frames.states[:, 0].tolist() == [step for step in range(WARM_UP, 12) if step != 8]
    assert len(frames.features) == len(frames.episode) == 12 - WARM_UP - 1
