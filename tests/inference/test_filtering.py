"""What is kept of a model that watches, and what of one that dreams."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from tests.inference.runs import MakeRun
from tests.inference.worlds import drifting_clips
from tests.models import small_config

from aime.attention.maps import centre_of_mass
from aime.data import open_dataset
from aime.inference.dreams import dream
from aime.inference.filtering import filter_clips
from aime.inference.overlays import PALETTE
from aime.inference.snapshot import draw_snapshot
from aime.inference.strips import columns, dreamt_attention, map_strips, path_strips
from aime.world_model.model import AIME


def model(kind: str) -> AIME:
    torch.manual_seed(0)
    config = small_config()
    attention = dataclasses.replace(config.attention, kind=kind)
    return AIME(dataclasses.replace(config, attention=attention)).eval()


def test_a_schema_s_maps_are_those_of_the_pass_and_their_centres_move_as_they_do() -> None:
    clips, world = drifting_clips(2, 6), model("schema")
    maps = filter_clips(world, clips).attention
    assert maps is not None
    output = world.forward_sequence(clips.frames, clips.actions, clips.action_valid).attention
    assert np.allclose(maps.fused, output.fused.detach().numpy(), atol=1e-6)
    centres = centre_of_mass(output.bottom_up).detach().numpy()
    assert np.allclose(maps.start[:, 1:], centres[:, :-1], atol=1e-4)
    assert np.allclose(maps.start + maps.actual, centres, atol=1e-4)
    assert maps.slot_maps.shape == (2, 6, 3, 8, 8)


def test_uniform_attention_is_nothing_to_draw() -> None:
    assert filter_clips(model("uniform"), drifting_clips(1, 4)).attention is None


def test_a_dream_attends_as_the_prior_expects_once_nothing_is_seen() -> None:
    clips, dreamer = drifting_clips(2, 7), model("schema")
    dreams, maps = dream(dreamer, clips, context=3, samples=2), filter_clips(dreamer, clips).attention
    assert maps is not None
    future = dreamer.predict_future(clips.frames[:, :3], clips.actions)
    dreamt = dreamt_attention(dreams, maps, clip=1)
    assert dreamt.shape == (7, 8, 8)
    assert np.allclose(dreamt[:3], maps.fused[1, :3])
    assert np.allclose(dreamt[3:], future.attention[1].numpy())
    assert np.allclose(dreamt.sum(axis=(1, 2)), 1, atol=1e-4)


def test_a_path_has_the_component_in_use_and_its_weight_under_each_dreamt_frame() -> None:
    clips, dreamer = drifting_clips(1, 6), model("schema")
    dreams = dream(dreamer, clips, context=2, samples=3)
    future = dreamer.predict_future(clips.frames[:, :2], clips.actions)
    assert (dreams.path.components == future.components.numpy()).all()
    assert np.allclose(dreams.path.weights, future.mixture_weights.max(dim=-1).values.numpy()), "the heaviest"
    rows = path_strips(dreams, 0, 2, lambda component: PALETTE[component])
    assert [row.label for row in rows] == ["most likely", "sample 1", "sample 2"]
    for row, path in zip(rows, [dreams.path.components[0], *dreams.sample_paths.components[0]], strict=False):
        assert row.notes is not None
        assert row.notes[:2] == [None, None]
        shown = [note.text.split(":")[0] for note in row.notes[2:] if note is not None]
        assert shown == [f"#{component}" for component in path.tolist()]


def test_rows_of_maps_are_on_one_scale() -> None:
    clips, world = drifting_clips(1, 5), model("schema")
    dreams, maps = dream(world, clips, context=2, samples=1), filter_clips(world, clips).attention
    assert maps is not None
    expected, bottom_up, fused, motion = map_strips(dreams, maps, 0, scale=2)
    assert [each.label for each in (expected, bottom_up, fused, motion)] == ["expected", "bottom-up", "fused", "motion"]
    assert motion.frames.shape == (5, 64, 64, 3)
    weight = np.concatenate([each.ravel() for each in (maps.prior[0], maps.bottom_up[0], maps.fused[0])])
    colour = np.concatenate([each.frames.reshape(-1, 3) for each in (expected, bottom_up, fused)])
    order = weight.argsort()
    assert (np.diff(colour[order].astype(int).sum(axis=-1)) >= -2).all(), "more weight is brighter in every row"


def test_columns_lie_ever_farther_apart_and_end_with_the_last_frame() -> None:
    assert columns(5, 50, 4) == [0, 4, 5, 8, 17, 49]
    assert columns(1, 3) == [0, 1, 2]


def test_progress_has_a_filmstrip_for_each_clip(make_run: MakeRun) -> None:
    dataset = open_dataset(make_run(length=12).data)
    schema, uniform = (draw_snapshot(model(kind), dataset) for kind in ("schema", "uniform"))
    assert schema.width == uniform.width
    # five rows and four, in each of two clips, of frames three times enlarged
    assert schema.height - uniform.height == 2 * (3 * 32 + 7)
