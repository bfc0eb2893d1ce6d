"""Sharpness: gradients by hand, blur, and predictors of which it is known how sharp they are."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from tests.inference.carts import carts, driving, scenery
from tests.inference.worlds import Knowledge, Oracle, drifting_clips
from torch import Tensor

from aime.cli.evaluate import _tables
from aime.inference.evaluate import score_clips
from aime.inference.evaluation import Evaluation
from aime.inference.sharpness import Gradients, gradients_of, magnitude
from aime.inference.summary import summarise

CLIPS, CONTEXT, LENGTH = 3, 2, 9


def evaluation_of(knowledge: Knowledge) -> Evaluation:
    scores = score_clips(Oracle(knowledge), drifting_clips(CLIPS, LENGTH), range(CLIPS), CONTEXT, 2)
    facts = dict.fromkeys(("run", "data", "split", "weights"), "")
    return summarise(scores, range(CLIPS), 2, **facts)


def blurred(frames: Tensor) -> Tensor:
    flat = frames.flatten(0, 1)
    return F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1).view_as(frames)


def shares(gradients: Gradients) -> list[float]:
    true = float(gradients.true.sum())
    return [float(each.sum()) / true for each in gradients[1:]]


def test_the_gradient_of_a_slope_is_its_steepness() -> None:
    column, row = torch.arange(5.0), torch.arange(4.0)[:, None]
    slope = (0.03 * column + 0.04 * row).expand(3, -1, -1)
    found = magnitude(slope)
    torch.testing.assert_close(found[:-1, :-1], torch.full((3, 4), 0.05))
    torch.testing.assert_close(found[-1, :-1], torch.full((4,), 0.03))
    torch.testing.assert_close(found[:-1, -1], torch.full((3,), 0.04))
    # one colour of three
    only_red = slope * torch.tensor([1.0, 0, 0])[:, None, None]
    torch.testing.assert_close(magnitude(only_red), found / math.sqrt(3))


def test_the_body_is_judged_by_itself() -> None:
    drawn = carts(driving(2, 6))
    true = drawn.frames / 255
    soft, sharp = blurred(true), scenery()
    empty = sharp.expand_as(true)
    whole = gradients_of(true, true, soft, empty)
    assert shares(whole)[0] == 1
    assert shares(whole)[1] < 0.8
    body = gradients_of(true, true, soft, empty, drawn.masks)
    exact, blur, missing = shares(body)
    assert exact == 1
    # a body that is not drawn costs its own pixels more than the frame
    assert missing < 0.3 < shares(whole)[2]
    assert missing < blur < 0.8
    # what is blurred away from the body does not count
    far = torch.where(F.max_pool2d((drawn.masks > 0).float(), 5, 1, 2)[:, :, None] > 0, true, soft)
    assert shares(gradients_of(true, far, far, far, drawn.masks))[0] == pytest.approx(1)
    assert shares(gradients_of(true, far, far, far))[0] < 0.9


@pytest.mark.parametrize(
    ("knowledge", "low", "high"), [("all", 1, 1), ("still", 1, 1), ("mean image", 0, 0), ("uncertain", 1.01, 2)]
)
def test_a_summary_is_of_all_frames_ahead(knowledge: Knowledge, low: float, high: float) -> None:
    found = evaluation_of(knowledge)
    assert found.sharpness is not None and found.intervals.sharpness is not None
    assert low - 1e-3 <= found.sharpness.sample <= high + 1e-3
    # the oracle's reconstructions are lighter, and as sharp
    assert found.sharpness.reconstruction == pytest.approx(1, abs=1e-4)
    assert found.intervals.sharpness.reconstruction is not None
    assert found.body_sharpness is None, "no masks"


def test_it_is_shown_and_files_of_before_are_read() -> None:
    found = evaluation_of("mean image")
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        for part in _tables(found):
            console.print(part, markup=False)
    [line] = [each for each in captured.get().splitlines() if "sharpness, reconstruction" in each]
    assert "1.00" in line
    assert Evaluation.from_json(found.to_json(), "file").sharpness == found.sharpness
    content = json.loads(found.to_json())
    for figures in (content, content["intervals"]):
        del figures["sharpness"], figures["body_sharpness"]
    before = Evaluation.from_json(json.dumps(content), "file")
    assert before.sharpness is None
    assert before.frame_bound == found.frame_bound
