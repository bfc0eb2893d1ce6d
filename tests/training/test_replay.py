"""The replay buffer returns what was added, overwrites the oldest clips, and samples latents from posteriors."""

from __future__ import annotations

import pytest
import torch
from tests.models import SIZE, small_config, targets

from aime.errors import AimeError
from aime.primitives.distributions import DiagonalGaussian
from aime.training.replay import LatentReplay, ReplayConfig
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput

B, T = 2, 4


@pytest.fixture(scope="module")
def output() -> SequenceOutput:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    with torch.no_grad():
        return model.forward_sequence(torch.rand(B, T, 3, SIZE, SIZE), torch.rand(B, T, 2))


def replay_of(clips: int = 3, capacity: int = 4) -> LatentReplay:
    return LatentReplay(clips, capacity, T, small_config())


def marked(output: SequenceOutput, mark: float) -> SequenceOutput:
    """The output with every context equal to `mark`, to know its clips by."""
    return output._replace(contexts=torch.full_like(output.contexts, mark))


def test_draws_nothing_before_it_remembers_and_nothing_when_off(output: SequenceOutput) -> None:
    replay, off = replay_of(), replay_of(clips=0)
    valid = torch.ones(B, T, dtype=torch.bool)
    assert replay.draw() is None
    off.add(output.posterior, output.clips(targets(valid)))
    assert off.draw() is None


def test_draws_the_clips_it_was_given(output: SequenceOutput) -> None:
    torch.manual_seed(0)
    replay, valid = replay_of(clips=64), torch.ones(B, T, dtype=torch.bool)
    valid[1, 2:] = False
    replay.add(output.posterior, output.clips(targets(valid)))
    drawn = replay.draw()
    assert drawn is not None
    first = (drawn.contexts == output.contexts[0]).all((1, 2))
    assert 0 < first.sum() < 64, "every remembered clip is drawn"
    for row, mine in enumerate((first, ~first)):
        assert (drawn.contexts[mine] == output.contexts[row]).all()
        assert (drawn.actions[mine] == output.track.actions[row]).all()
        assert (drawn.valid[mine] == valid[row]).all()


def test_latents_are_fresh_samples_of_the_posterior(output: SequenceOutput) -> None:
    torch.manual_seed(0)
    replay = replay_of(clips=4000, capacity=2)
    replay.add(output.posterior, output.clips(targets(torch.ones(B, T, dtype=torch.bool))))
    drawn = replay.draw()
    assert drawn is not None
    first = drawn.latents[(drawn.contexts == output.contexts[0]).all((1, 2))]
    error = first.std(0) / output.posterior.std[0] - 1
    assert error.abs().max() < 0.15
    assert ((first.mean(0) - output.posterior.mean[0]) / output.posterior.std[0]).abs().max() < 0.15


def test_the_oldest_are_forgotten_first(output: SequenceOutput) -> None:
    replay, valid = replay_of(clips=64, capacity=5), torch.ones(B, T, dtype=torch.bool)
    for mark in range(4):
        now = marked(output, mark)
        replay.add(now.posterior, now.clips(targets(valid)))
    drawn = replay.draw()
    assert drawn is not None
    # eight clips came and five places remain: 1, 2, 2, 3, 3
    assert set(drawn.contexts.flatten().tolist()) == {1.0, 2.0, 3.0}


def test_its_state_is_all_it_remembers(output: SequenceOutput) -> None:
    replay, other = replay_of(), replay_of()
    replay.add(output.posterior, output.clips(targets(torch.ones(B, T, dtype=torch.bool))))
    other.load_state_dict(replay.state_dict())
    torch.manual_seed(1)
    first = replay.draw()
    torch.manual_seed(1)
    second = other.draw()
    assert first is not None
    assert second is not None
    pairs = zip((*first[:3], *first.targets), (*second[:3], *second.targets), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.mark.parametrize("padded", [(), (0, 5), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("before", [0, 3])
def test_a_batch_above_the_capacity_leaves_its_last_clips_whole(before: int, padded: tuple[int, ...]) -> None:
    config, count = small_config(), 7
    replay = replay_of(clips=64, capacity=4)

    def numbered(first: int, number: int) -> tuple[DiagonalGaussian, LatentClips]:
        """Every number of a clip is the clip's own."""
        marks = torch.arange(first, first + number, dtype=torch.float32)[:, None, None].expand(-1, T, -1)
        means, contexts, actions = (marks.expand(-1, -1, width) for width in (config.latent, config.context, 2))
        valid = torch.ones(number, T, dtype=torch.bool)
        known = targets(valid)._replace(rewards=marks[..., 0])
        return DiagonalGaussian(means, means), LatentClips(means, contexts, actions, known)

    if before:
        replay.add(*numbered(1, before))
    posterior, clips = numbered(10, count)
    valid = clips.valid.clone()
    valid[list(padded)] = False
    replay.add(posterior, clips._replace(targets=clips.targets._replace(valid=valid)))
    # a queue of four, which padding never enters
    expected = [*range(1, 1 + before), *(10 + row for row in range(count) if row not in padded)][-4:]
    fields = (replay.means, replay.stds, replay.contexts, replay.actions, replay.rewards[..., None])
    rows = [torch.cat([field.flatten(1) for field in fields], dim=1)[row] for row in range(4)]
    assert all(len(set(row.tolist())) == 1 for row in rows), "a row is of one clip"
    held = sorted(int(row[0]) for row, filled in zip(rows, replay.valid.any(1), strict=True) if filled)
    assert held == expected
    assert replay.seen == before + count - len(padded)


@pytest.mark.parametrize("clips", [-1, 10**6])
def test_impossible_sizes_are_refused(clips: int) -> None:
    with pytest.raises(AimeError, match=r"replay\.clips is .*expected"):
        ReplayConfig(clips)
