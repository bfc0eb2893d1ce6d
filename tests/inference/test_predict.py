"""Films of a run's dreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from tests.inference.runs import MakeRun
from tests.inference.worlds import Oracle, drifting_clips

from aime.errors import AimeError
from aime.inference import predict_run
from aime.inference.dreams import dream, to_pixels
from aime.inference.filtering import filter_clips
from aime.inference.loading import load_run
from aime.inference.predict import Shown, film_strips
from aime.world_model.model import AIME


def test_dreams_begin_with_what_was_seen_and_go_on_with_what_was_dreamt() -> None:
    clips = drifting_clips(2, 7)
    dreams = dream(cast(AIME, Oracle("all")), clips, context=3, samples=2)
    truth = clips.frames.permute(0, 1, 3, 4, 2).numpy()
    assert (dreams.truth == truth).all()
    assert (dreams.likeliest == truth).all()
    assert dreams.samples.shape == (2, 2, 7, 32, 32, 3)
    assert (dreams.samples == truth[:, None]).all()
    assert (dreams.difference == 0).all()


def test_the_difference_is_the_largest_of_the_three_colours() -> None:
    dreams = dream(cast(AIME, Oracle("still")), drifting_clips(1, 5), context=2, samples=1)
    expected = np.abs(dreams.likeliest.astype(int) - dreams.truth.astype(int)).max(axis=-1)
    assert (dreams.difference == expected).all()
    assert (dreams.difference[:, :2] == 0).all()
    assert (dreams.difference[:, 2:] > 0).any()


def test_a_row_of_the_film_has_truth_dream_difference_and_samples() -> None:
    dreams = dream(cast(AIME, Oracle("uncertain")), drifting_clips(2, 6), context=2, samples=3)
    grid = film_strips(dreams)
    assert [strip.label for strip in grid[1]] == [
        "truth",
        "most likely",
        "difference",
        "sample 1",
        "sample 2",
        "sample 3",
    ]
    assert [strip.dreamt for strip in grid[1]] == [False] + 5 * [True]
    assert (grid[1][4].frames == dreams.samples[1, 1]).all()


def test_attention_has_a_tile_over_the_dream_or_all_maps_or_none(make_run: MakeRun) -> None:
    _, model = load_run(make_run().path, "cpu")
    clips = drifting_clips(1, 5)
    dreams, maps = dream(model, clips, context=2, samples=1), filter_clips(model, clips).attention
    labels = {shown: [strip.label for strip in film_strips(dreams, maps, shown)[0]] for shown in get_args(Shown)}
    assert labels["one"] == ["truth", "most likely", "difference", "attention", "sample 1"]
    assert labels["none"] == ["truth", "most likely", "difference", "sample 1"]
    tiles = ["on true frames", "on predicted", "slots", "expected", "bottom-up", "fused", "motion"]
    assert labels["all"] == ["truth", "most likely", *tiles]
    assert [strip.label for strip in film_strips(dreams, None, "one")[0]] == labels["none"]


def test_all_attention_makes_a_film_and_is_refused_where_it_is_uniform(make_run: MakeRun, tmp_path: Path) -> None:
    out = tmp_path / "maps.webp"
    predict_run(make_run().path, None, out, 2, 3, samples=1, clips=1, attention="all")
    assert Image.open(out).width > 9 * 128
    with pytest.raises(AimeError, match=r"^attention is all; expected one or none.*uniform"):
        predict_run(make_run(kind="uniform").path, None, out, 2, 3, attention="all")


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 1.2]).view(1, 6, 1, 1, 1).expand(1, 6, 3, 1, 1)
    assert to_pixels(values)[0, :, 0, 0, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_a_run_gives_a_film(make_run: MakeRun, tmp_path: Path) -> None:
    out = tmp_path / "films" / "dream.webp"
    titles: list[str] = []
    assert (
        predict_run(make_run().path, None, out, context=2, horizon=6, samples=2, clips=2, announce=titles.append) == out
    )
    assert len(titles) == 1 and titles[0].endswith("(test part, held out by the run)")
    film = Image.open(out)
    assert sum(1 for _ in ImageSequence.Iterator(film)) == 8
    assert film.width > 5 * 128


def test_the_seed_decides_the_samples(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run().path
    films = [
        predict_run(run, None, tmp_path / f"{number}.webp", 2, 6, samples=1, clips=1, seed=seed).read_bytes()
        for number, seed in enumerate([0, 0, 1])
    ]
    assert films[0] == films[1] != films[2]


@pytest.mark.parametrize("name", ["context", "horizon", "samples", "clips"])
def test_numbers_below_one_are_refused(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    arguments: dict[str, Any] = {"context": 2, "horizon": 6, "samples": 2, "clips": 1, name: 0}
    with pytest.raises(AimeError, match=rf"^{name} is 0; expected 1 or more"):
        predict_run(make_run().path, None, tmp_path / "dream.webp", **arguments)


def test_nothing_is_written_when_something_is_wrong(make_run: MakeRun, tmp_path: Path) -> None:
    out = tmp_path / "dream.webp"
    out.write_bytes(b"old")
    with pytest.raises(AimeError, match="longest unseen episode"):
        predict_run(make_run().path, None, out)
    with pytest.raises(AimeError, match=r"ends in \.txt"):
        predict_run(tmp_path / "no run", None, tmp_path / "dream.txt")
    assert out.read_bytes() == b"old"
