"""The attention schema: what each map may depend on, fusion, precision, and the switch that turns it off."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aime.attention.maps import map_kl
from aime.attention.schema import AttentionConfig, AttentionSchema
from aime.attention.uniform import UniformAttention
from aime.errors import AimeError

N, GRID, BELIEF, LATENT = 4, 8, 6, 5
CHANNELS = (4, 6, 6)
CONFIG = AttentionConfig(slots=3, width=8)


def schema(config: AttentionConfig = CONFIG) -> AttentionSchema:
    torch.manual_seed(0)
    module = AttentionSchema(config, CHANNELS, BELIEF, LATENT, GRID).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return module.eval()


def pyramid(frames: int = N) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(frames, width, size, size, generator=generator, dtype=torch.float64)
        for width, size in zip(CHANNELS, (16, 8, 4), strict=True)
    )


def vectors(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_bottom_up_map_is_the_scored_sum_of_the_slots_maps() -> None:
    module = schema()
    seen = module.look(pyramid())
    scores = module.bottom_up.score(seen.slots)[..., 0].softmax(1)
    for n in range(N):
        expected = sum(scores[n, s] * seen.slot_maps[n, s] / seen.slot_maps[n, s].sum() for s in range(3))
        torch.testing.assert_close(seen.map[n], 0.99 * expected + 0.01 / GRID**2)
    torch.testing.assert_close(seen.slot_maps.sum(1), torch.ones(N, GRID, GRID, dtype=torch.float64))


def test_the_prior_map_starts_as_the_last_map() -> None:
    torch.manual_seed(0)
    module = AttentionSchema(CONFIG, CHANNELS, BELIEF, LATENT, GRID).double()
    last = module.look(pyramid()).map
    expected = module.expect(vectors(N, BELIEF), vectors(N, LATENT), last)
    assert map_kl(last, expected.map).max() < 1e-2
    assert not expected.motion.any()


def test_a_change_of_a_frame_reaches_its_own_bottom_up_map_and_the_next_prior_map_only() -> None:
    module = schema()
    beliefs, latents = vectors(1, N, BELIEF), vectors(1, N, LATENT, seed=3)
    levels = pyramid()
    other = tuple(level.clone() for level in levels)
    for level in other:
        level[1] += 1
    before, after = (module(module.look(each), beliefs, latents) for each in (levels, other))
    changed = {
        name: (getattr(before, name) != getattr(after, name)).flatten(2).any(-1)[0].tolist()
        for name in ("bottom_up", "prior", "fused")
    }
    assert changed == {
        "bottom_up": [False, True, False, False],
        "prior": [False, False, True, False],
        "fused": [False, True, True, False],
    }


def test_training_shows_what_is_expected_from_an_old_map_in_a_share_of_the_clips() -> None:
    clips, length = 200, 20
    module = schema().train()
    seen = module.look(pyramid(clips * length))
    attention = module(seen, vectors(clips, length, BELIEF), vectors(clips, length, LATENT, seed=3))
    imagined = (attention.shown == attention.prior).flatten(1).all(1)
    assert torch.equal(attention.shown[~imagined], attention.fused[~imagined])
    assert imagined.float().mean() == pytest.approx(CONFIG.expected_share, abs=0.1)
    maps = torch.cat([module.initial_map(clips)[:, None], attention.bottom_up], dim=1)
    ages = []
    for clip in range(clips):
        fitting = [
            age
            for age in range(1, 17)
            if all(torch.equal(attention.last[clip, t], maps[clip, max(0, t + 1 - age)]) for t in range(length))
        ]
        assert len(fitting) == 1, "one age for all frames of a clip"
        ages.append(fitting[0])
    drawn = torch.tensor(ages)
    assert (drawn[~imagined] == 1).all()
    assert len(set(drawn[imagined].tolist())) > 8


def test_from_an_old_map_the_prior_map_teaches_the_motion_nothing() -> None:
    module = schema().train()
    clips, length = 12, 5
    seen = module.look(pyramid(clips * length))
    attention = module(seen, vectors(clips, length, BELIEF), vectors(clips, length, LATENT, seed=3))
    maps = attention.bottom_up
    expected = []
    for clip in range(clips):
        for time in range(length):
            of_one_step = time > 0 and torch.equal(attention.last[clip, time], maps[clip, time - 1])
            expected.append(of_one_step)
            # a sum of the map itself would be 1 whatever the motion
            nats = attention.prior[clip, time].log().mean()
            (gradient,) = torch.autograd.grad(nats, module.top_down.motion.bias, retain_graph=True)
            assert bool(gradient.any()) == of_one_step, (clip, time)
    assert 0 < sum(expected) < clips * (length - 1)


def test_rolling_is_expecting_from_the_map_before() -> None:
    module = schema()
    beliefs, latents = vectors(N, 3, BELIEF), vectors(N, 3, LATENT, seed=3)
    last = module.initial_map(N)
    rolled = module.roll(beliefs, latents, last)
    for step in range(3):
        last = module.expect(beliefs[:, step], latents[:, step], last).map
        torch.testing.assert_close(rolled[:, step], last)


def test_fused_maps_are_distributions_between_their_parts() -> None:
    module = schema()
    seen, belief = module.look(pyramid()).map, 20 * vectors(N, BELIEF)
    expected = module.expect(belief, vectors(N, LATENT), module.initial_map(N)).map
    fused = module.fuse(seen, expected, belief)
    torch.testing.assert_close(fused.sum((-2, -1)), torch.ones(N, dtype=torch.float64))
    share = ((fused - expected) / (seen - expected)).flatten(1)
    torch.testing.assert_close(share.amin(1), share.amax(1))
    assert share.min() >= 0.1 - 1e-9 and share.max() <= 0.9 + 1e-9


def test_uniform_attention_says_nothing() -> None:
    off = UniformAttention(AttentionConfig(), (), 1, 1, GRID).double()
    attention = off(off.look(pyramid()), vectors(1, N, BELIEF), vectors(1, N, LATENT))
    assert (attention.fused == 1 / GRID**2).all()
    assert not attention.motion.any() and not attention.slot_error.any()
    assert not map_kl(attention.fused, attention.prior).any()
    assert list(off.parameters()) == [] and list(off.state_dict()) == []
    assert off.roll(vectors(N, 3, BELIEF), vectors(N, 3, LATENT), off.initial_map(N)).shape == (N, 3, GRID, GRID)


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"width": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(AimeError, match=f"attention.{next(iter(wrong))} is"):
        AttentionConfig(**wrong)  # type: ignore[arg-type]


def test_slots_learn_to_hold_a_moving_blob_apart_from_its_ground() -> None:
    """Trained to reconstruct features alone, some slot's map follows a blob that no label points out."""
    torch.manual_seed(0)
    module = AttentionSchema(AttentionConfig(slots=2, width=16), (4, 4, 4), BELIEF, LATENT, GRID)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)

    def scene(count: int) -> tuple[tuple[Tensor, ...], Tensor]:
        x = torch.randint(1, GRID - 1, (count,))
        middle = 0.1 * torch.randn(count, 4, GRID, GRID)
        for n in range(count):
            middle[n, :2, 3:5, x[n] - 1 : x[n] + 1] += 3
        fine = torch.nn.functional.interpolate(middle, scale_factor=2.0)
        return (fine, middle, torch.nn.functional.avg_pool2d(middle, 2)), x

    for _ in range(150):
        seen = module.look(scene(16)[0])
        optimizer.zero_grad()
        seen.slot_error.mean().backward()
        optimizer.step()
    levels, x = scene(64)
    seen = module.look(levels)
    columns = torch.arange(GRID)
    centres = torch.einsum("nshw,w->ns", seen.slot_maps / seen.slot_maps.sum((2, 3), keepdim=True), columns.float())
    correlation = max(float(torch.corrcoef(torch.stack([centres[:, s].detach(), x.float()]))[0, 1]) for s in range(2))
    assert correlation > 0.9, f"correlation {correlation:.2f}"
    assert not math.isnan(correlation)
