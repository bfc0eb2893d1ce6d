"""Discrete actions of every kind: one number a choice, 1 for the one taken and -1 for the others; never a rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.io.importers.encoding import tensor
from tests.io.importers.test_hdf5_kinds import complaint, run, write_minari, write_worldmodel
from tests.io.importers.test_last_row import write_rlds

from aime.cli.main import main
from aime.data import open_dataset
from aime.data.action_scale import ActionScale

RANDOM = np.random.default_rng(0)
TOOL = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 6}
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-4.0, "-inf"], "high": [4.0, "inf"]}


def one_hot(chosen: np.ndarray, choices: int) -> np.ndarray:
    return 2 * np.eye(choices)[np.asarray(chosen, int)] - 1


def stored(out: Path) -> np.ndarray:
    """Actions of the first episode, but the last."""
    return open_dataset(out).read(0).action[:-1]


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(low, high, shape)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        ({"type": "Discrete", "start": -1, "n": 3}, a := integers(-1, 2, 8), one_hot(a + 1, 3)),
        ({"type": "Discrete", "n": 4}, b := integers(0, 4, 8), one_hot(b, 4)),
        (
            {"type": "MultiDiscrete", "nvec": [3, 5], "start": [0, 2]},
            c := np.stack([integers(0, 3, 8), integers(2, 7, 8)], axis=1),
            np.concatenate([one_hot(c[:, 0], 3), one_hot(c[:, 1] - 2, 5)], axis=1),
        ),
        (
            {"type": "MultiDiscrete", "nvec": [[2, 3], [4, 2]]},
            d := integers(0, 2, 8, 2, 2),
            np.concatenate([one_hot(d.reshape(8, 4)[:, i], n) for i, n in enumerate((2, 3, 4, 2))], axis=1),
        ),
        ({"type": "MultiBinary", "n": 3}, e := integers(0, 2, 8, 3).astype(np.int8), 2 * e.astype(float) - 1),
        ({"type": "MultiBinary", "n": [2, 2]}, f := integers(0, 2, 8, 2, 2), 2 * f.reshape(8, 4) - 1),
    ],
    ids=["from -1", "Discrete", "MultiDiscrete", "MultiDiscrete 2x2", "MultiBinary", "MultiBinary 2x2"],
)
def test_spaces_of_minari(tmp_path: Path, space: dict[str, Any], actions: np.ndarray, expected: np.ndarray) -> None:
    write_minari(tmp_path / "source", space, [actions])
    assert run("minari", tmp_path / "source", tmp_path / "out") == 0
    np.testing.assert_array_equal(stored(tmp_path / "out"), expected)


def test_choices_inside_of_dict_and_tuple(tmp_path: Path) -> None:
    """Beside an unbounded quantity, whose range comes from its numbers; choices keep -1 and 1."""
    arm = RANDOM.uniform(-3, 3, (8, 2)).astype(np.float32)
    tool, hand = integers(0, 5, 8), integers(0, 2, 8)  # tool 5 is never taken
    fields = {"pair/_index_0": arm, "pair/_index_1": hand, "tool": tool}
    pair = {"type": "Tuple", "subspaces": [BOX, {"type": "Discrete", "n": 2}]}
    write_minari(tmp_path / "source", {"type": "Dict", "subspaces": {"tool": TOOL, "pair": pair}}, [fields])
    metadata = tmp_path / "source/data/metadata.json"
    metadata.write_text(metadata.read_text().replace('\\"-inf\\"', "-Infinity").replace('\\"inf\\"', "Infinity"))
    assert run("minari", tmp_path / "source", tmp_path / "out") == 0
    found = stored(tmp_path / "out")
    np.testing.assert_allclose(found[:, 0], arm[:, 0] / 4, atol=1e-6)
    low, high = arm[:, 1].min(), arm[:, 1].max()
    np.testing.assert_allclose(found[:, 1], 2 * (arm[:, 1] - low) / (high - low) - 1, atol=1e-6)
    np.testing.assert_array_equal(found[:, 2:4], one_hot(hand, 2))
    np.testing.assert_array_equal(found[:, 4:], one_hot(tool, 6))
    scale = ActionScale.of_attributes(open_dataset(tmp_path / "out").attributes)
    assert scale is not None and scale.low[2:] == (-1.0,) * 8 and scale.low[0] == -4


def test_tuples_of_more_than_ten_keep_their_order(tmp_path: Path) -> None:
    fields = {f"_index_{index}": np.full(4, index % 3) for index in range(12)}
    space = {"type": "Tuple", "subspaces": [{"type": "Discrete", "n": 3}] * 12}
    write_minari(tmp_path / "source", space, [fields])
    assert run("minari", tmp_path / "source", tmp_path / "out") == 0
    expected = np.concatenate([one_hot(np.full(4, index % 3), 3) for index in range(12)], axis=1)
    np.testing.assert_array_equal(stored(tmp_path / "out"), expected)


@pytest.mark.parametrize(
    ("space", "actions", "words"),
    [
        ({"type": "Discrete", "n": 3}, np.array([0, 3]), "is 3, expected 0 to 2, a choice of 3"),
        ({"type": "Discrete", "n": 3, "start": 1}, np.array([1, 0]), "is 0, expected 1 to 3"),
        ({"type": "Discrete", "n": 3}, np.array([0.0, 0.5]), "is 0.5, expected a whole number"),
        ({"type": "MultiBinary", "n": 2}, np.array([[0, 2]]), "is 2, expected 0 or 1"),
        ({"type": "MultiDiscrete", "nvec": [2, 2]}, np.array([[0], [1]]), "of 1 numbers"),
        ({"type": "Discrete", "n": 10**6}, np.array([0, 1]), "expected 1 or more each and 4096 at most"),
        ({"type": "Discrete", "n": 10**400}, np.array([0, 1]), "expected a whole number"),
        ({"type": "Discrete", "n": True}, np.array([0, 1]), "expected a whole number"),
        ({"type": "Text"}, np.array([0, 1]), "is not a space of actions"),
        ({"type": "Dict", "subspaces": {"a": TOOL}}, np.array([0, 1]), "expected ['a'] as in metadata.json"),
        ({"type": "Box", "low": [0], "high": [1, 2], "shape": [2]}, np.array([0, 1]), "expected as many"),
        ({"n": 3}, np.array([0, 1]), "is not a space"),
        ([1], np.array([0, 1]), "is not a space"),
    ],
)
def test_what_is_none_of_the_choices_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], space: Any, actions: np.ndarray, words: str
) -> None:
    write_minari(tmp_path / "source", space, [actions])
    message = complaint(capsys, "minari", tmp_path / "source", tmp_path / "out")
    assert words in message and str(tmp_path / "source") in message


def test_without_a_declared_space_choices_are_those_that_occur(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_minari(tmp_path / "source", None, [np.array([0, 1]), np.array([2, 0])])
    assert run("minari", tmp_path / "source", tmp_path / "out") == 0
    np.testing.assert_array_equal(stored(tmp_path / "out"), one_hot(np.array([0, 1]), 3))
    assert "'actions' is taken as a choice of 0 to 2, which occur" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out/import.json").read_text())["notes"]) == 1


def import_rlds(tmp_path: Path, values: np.ndarray, declared: dict[str, Any]) -> int:
    source = write_rlds(tmp_path / "in", {"action": values}, {"action": declared})
    flags = ("--out", str(tmp_path / "out"), "--image-size", "16", "--workers", "1")
    return main(["import", "dmc-vb", str(source), *flags])


@pytest.mark.parametrize(
    ("values", "declared", "expected"),
    [
        (np.array([0, 2, 1]), tensor((), "int64"), one_hot(np.array([0, 2, 1]), 3)),
        (np.array([-1, 1, 0]), tensor((1,), "int32"), one_hot(np.array([0, 2, 1]), 3)),
        (np.array([0, 1, 0]), {"classLabel": {"numClasses": "4"}}, one_hot(np.array([0, 1, 0]), 4)),
        (np.array([[0, 1], [1, 1], [0, 0]]), tensor((2,), "bool"), np.array([[-1, 1], [1, 1], [-1, -1]])),
        (
            np.array([[0, 2], [1, 0], [0, 1]]),
            tensor((2,), "int64"),
            np.concatenate([one_hot(np.array([0, 1, 0]), 2), one_hot(np.array([2, 0, 1]), 3)], axis=1),
        ),
    ],
)
def test_whole_numbers_of_rlds(
    tmp_path: Path, values: np.ndarray, declared: dict[str, Any], expected: np.ndarray
) -> None:
    assert import_rlds(tmp_path, values, declared) == 0
    np.testing.assert_array_equal(stored(tmp_path / "out"), expected[:-1])


def test_whole_numbers_of_rlds_that_are_amounts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_rlds(tmp_path, np.array([0, 100_000, 1]), tensor((), "int64")) == 2
    assert "whole numbers from 0 to 100000, expected 4096 choices at most" in capsys.readouterr().err
    assert import_rlds(tmp_path / "b", np.array([0, 5, 1]), {"classLabel": {"numClasses": "4"}}) == 2
    assert "'action' is 5, expected 0 to 3" in capsys.readouterr().err


def test_a_dict_of_actions_of_rlds(tmp_path: Path) -> None:
    """As RT-1 of Open X-Embodiment has it: vectors of floats and of whole numbers below 'action'."""
    steps = {"action/arm": np.array([[1.0, 4], [2, 8], [0, 0]]), "action/stop": np.array([[0, 1], [1, 0], [0, 0]])}
    parts = {"arm": tensor((2,), "float32"), "stop": tensor((2,), "int32")}
    declared = {"action": {"featuresDict": {"features": parts}}}
    source = write_rlds(tmp_path / "in", steps, declared)
    flags = ("--out", str(tmp_path / "out"), "--image-size", "16", "--workers", "1", "--action-range", "0", "8")
    assert main(["import", "dmc-vb", str(source), *flags]) == 0
    np.testing.assert_allclose(stored(tmp_path / "out"), [[-0.75, 0, -1, 1], [-0.5, 1, 1, -1]])


@pytest.mark.parametrize("axes", [1, 2])
def test_whole_numbers_of_stable_worldmodel(tmp_path: Path, capsys: pytest.CaptureFixture[str], axes: int) -> None:
    path = tmp_path / "a.h5"
    write_worldmodel(path, [6, 3])
    chosen = np.array([0, 1, 2, 3, 0, 0, 1, 1, 0])
    with h5py.File(path, "r+") as file:
        del file["action"]
        file["action"] = chosen if axes == 1 else chosen[:, None]
    assert run("stable-worldmodel", path, tmp_path / "out") == 0
    np.testing.assert_array_equal(stored(tmp_path / "out"), one_hot(chosen[:5], 4))
    assert "'action' is taken as a choice of 0 to 3" in capsys.readouterr().out


def test_choices_that_stable_worldmodel_stores_as_floats(tmp_path: Path) -> None:
    """Its last action of an episode is NaN, so that CartPole's 0 and 1 are floats."""
    path = tmp_path / "a.h5"
    write_worldmodel(path, [6, 3])
    chosen = np.array([0, 1, 1, 0, 1, np.nan, 0, 1, np.nan])
    with h5py.File(path, "r+") as file:
        del file["action"]
        file["action"] = chosen[:, None]
    assert run("stable-worldmodel", path, tmp_path / "out") == 0
    np.testing.assert_array_equal(stored(tmp_path / "out"), one_hot(chosen[:5], 2))
    assert np.isnan(open_dataset(tmp_path / "out").read(0).action[-1]).all()


@pytest.mark.parametrize(
    "values", [[0.0, 1, 2, 3, 0.5, 0, 1, 1, 0], [-1.0, 1, 1, -1, 1, 1, -1, 1, 1], [100.0, *range(8)]]
)
def test_floats_that_are_more_than_small_whole_numbers_are_quantities(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "a.h5"
    write_worldmodel(path, [6, 3])
    with h5py.File(path, "r+") as file:
        del file["action"]
        file["action"] = np.array(values)[:, None]
    assert run("stable-worldmodel", path, tmp_path / "out") == 0
    assert stored(tmp_path / "out").shape == (5, 1)
