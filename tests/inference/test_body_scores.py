"""Foreground, read states and masks in an evaluation: averaged over clips, kept in JSON, and shown."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.inference.carts import SIZE, carts, driving
from tests.inference.runs import write_run
from tests.inference.worlds import Oracle, drifting_clips

from aime.cli.evaluate import _tables
from aime.data import Episode, open_dataset, write_shard
from aime.data.clips import clip_starts
from aime.data.identity import half_of
from aime.inference import Evaluation
from aime.inference.clip_scores import ClipScores
from aime.inference.evaluate import score_clips
from aime.inference.foreground import Counts, ForegroundCounts
from aime.inference.mask_scores import MaskErrors
from aime.inference.references import read_masks
from aime.inference.report.body import body_section
from aime.inference.state_reader import ReadErrors
from aime.inference.summary import summarise
from aime.inference.unseen import open_unseen
from aime.world_model.saved import read_run

CLIPS, CONTEXT, AHEAD = 4, 2, 5


@pytest.fixture(scope="module")
def scores() -> ClipScores:
    """Of four clips, with all that may be there."""
    length = CONTEXT + AHEAD
    found = score_clips(Oracle("uncertain"), drifting_clips(CLIPS, length), range(CLIPS), CONTEXT, 9)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    def draw_counts() -> Counts:
        return Counts(10 * draw(CLIPS, AHEAD), *(10 + 10 * draw(2, CLIPS, AHEAD)))

    masks = MaskErrors(*draw(6, CLIPS, length))
    masks.foreground_ari[0] = torch.nan
    masks.attention[1, 2] = masks.area[1, 2] = torch.nan
    return found._replace(
        foreground=ForegroundCounts(
            draw_counts(), draw_counts(), draw_counts(), draw_counts(), draw_counts(), share=draw(CLIPS, 1)
        ),
        read=ReadErrors(*draw(5, CLIPS, AHEAD, 2)),
        masks=masks,
    )


def evaluation_of(scores: ClipScores) -> Evaluation:
    found = summarise(scores, [0, 0, 1, 2], 9, run="run", data="data", split="test", weights="0")
    return replace(found, foreground_from="the median", state_reader="fitted", read_entries=("place", "angle"))


def test_counts_are_summed_over_clips_before_they_are_divided(scores: ClipScores) -> None:
    found = evaluation_of(scores).foreground
    assert found is not None
    hits, shown, true = (each[:, 2].sum() for each in scores.foreground.samples)
    overlap = found.horizons[3].samples
    assert (overlap.precision, overlap.recall) == pytest.approx((float(hits / shown), float(hits / true)))
    assert overlap.f1 == pytest.approx(2 / (1 / overlap.precision + 1 / overlap.recall))
    hits, shown, true = (each.sum() for each in scores.foreground.true_frames)
    assert found.true_frames == pytest.approx(float(2 * hits / (shown + true)))
    assert found.share == pytest.approx(float(scores.foreground.share.mean()))


def test_what_is_read_has_r2_at_every_horizon_and_for_every_number(scores: ClipScores) -> None:
    found = evaluation_of(scores).read_states
    assert found is not None
    error, mean = scores.read.likeliest[:, 2].mean(), scores.read.mean[:, 2].mean()
    assert found.horizons[3].likeliest.r2 == pytest.approx(float(1 - error / mean), abs=1e-6)
    assert found.horizons[3].likeliest.error == pytest.approx(math.sqrt(error))
    error, mean = scores.read.persistence[..., 1].mean(), scores.read.mean[..., 1].mean()
    assert found.entries[1].persistence.r2 == pytest.approx(float(1 - error / mean), abs=1e-6)


def test_masks_are_averaged_over_the_frames_that_show_a_body(scores: ClipScores) -> None:
    found = evaluation_of(scores).masks
    assert found is not None
    assert found.slot_iou == pytest.approx(float(scores.masks.slot_iou.mean()))
    assert found.foreground_ari == pytest.approx(float(scores.masks.foreground_ari[1:].mean()))
    assert found.attention_ratio == pytest.approx(float(scores.masks.attention.nansum() / scores.masks.area.nansum()))


def test_they_are_kept_in_json_with_their_intervals(scores: ClipScores) -> None:
    whole = evaluation_of(scores)
    again = Evaluation.from_json(whole.to_json(), "file")
    assert again.to_json() == whole.to_json()
    assert (again.foreground, again.read_states, again.masks) == (whole.foreground, whole.read_states, whole.masks)
    assert again.read_entries == whole.read_entries
    bounds = whole.intervals.foreground
    assert bounds is not None and whole.foreground is not None
    low, high = bounds.horizons[2].likeliest.f1 or (1, 0)
    assert low < whole.foreground.horizons[2].likeliest.f1 < high
    bare = evaluation_of(score_clips(Oracle("all"), drifting_clips(CLIPS, 7), range(CLIPS), CONTEXT, 2))
    again = Evaluation.from_json(bare.to_json(), "file")
    assert (again.foreground, again.read_states, again.masks) == (None, None, None)


def test_they_are_shown_in_the_terminal_and_in_the_report(scores: ClipScores) -> None:
    whole = evaluation_of(scores)
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        for part in _tables(whole):
            console.print(part, markup=False)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert whole.foreground is not None and whole.masks is not None
    assert "state read from frames (R²): fitted" in lines
    text = "\n".join(lines)
    assert f"{whole.foreground.horizons[5].likeliest.f1:.2f}" in text
    assert f"{whole.masks.attention_ratio:.2f}" in text
    page = body_section(whole)
    assert re.findall(r'aria-label="([^"]+)"', page) == [
        "foreground F1 against horizon",
        "state read from frames against horizon",
    ]
    assert "IoU of a body with its best slot" in page
    bare = replace(whole, foreground=None, read_states=None, masks=None, state_reader="none: no states")
    assert "<svg" not in body_section(bare) and "none: no states" in body_section(bare)


@pytest.mark.parametrize("part", ["test", "validation", "all"])
def test_a_reader_is_fitted_to_no_episode_that_is_scored_and_to_none_of_the_test_half(
    tmp_path: Path, part: str
) -> None:
    run = write_run(tmp_path)
    unseen = open_unseen(read_run(run.path), None, 2, 3, part)  # type: ignore[arg-type]
    assert unseen.others is not None
    others = set(unseen.others.digests)
    assert not others & set(unseen.dataset.digests)
    every = open_dataset(run.data).digests
    held_out = set(every) - set(open_dataset(run.data, "train", 0.25).digests)
    assert others >= set(every) - held_out
    assert not any(half_of(each) == "test" for each in others & held_out)
    assert bool(others & held_out) == (part == "test")


def test_masks_are_read_where_all_clips_have_them(tmp_path: Path) -> None:
    drawn = carts(driving(2, 12))
    zeros = np.zeros((12, 1), np.float32)
    episodes = [
        Episode(
            np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy()),
            zeros,
            zeros[:, 0],
            np.zeros(12, bool),
            mask=masks.numpy(),
        )
        for frames, masks in zip(*drawn, strict=True)
    ]
    write_shard(tmp_path / "0.h5", episodes)
    dataset = open_dataset(tmp_path)
    places = clip_starts(dataset, 5)
    found = read_masks(dataset, places, 5)
    assert found is not None and found.shape == (4, 5, SIZE, SIZE)
    for row, (episode, start) in enumerate(zip(*places, strict=True)):
        assert torch.equal(found[row], drawn.masks[episode, start : start + 5])
    write_shard(tmp_path / "1.h5", [replace(episodes[0], mask=None, reward=zeros[:, 0] + 1)])
    mixed = open_dataset(tmp_path)
    assert read_masks(mixed, clip_starts(mixed, 5), 5) is None
