"""What the last row of an episode brought arrives at a last frame: sparse success does not disappear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.io.importers.encoding import example, feature, framed, tensor
from tests.io.importers.examples import read_examples

from aime.cli.main import main
from aime.data import Episode, open_dataset
from aime.io.importers.interface import BadEpisode, Recorded, arriving

HERE = Path(__file__).parent


def imported(kind: str, source: Path, out: Path, *flags: str) -> list[Episode]:
    assert main(["import", kind, str(source), "--out", str(out), "--workers", "1", *flags]) == 0
    return list(open_dataset(out))


def last_frame_repeats(episode: Episode) -> bool:
    return np.array_equal(episode.pixels[-1], episode.pixels[-2]) and bool(np.isnan(episode.action[-1]).all())


def test_success_of_open_x(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two episodes that tensorflow-datasets wrote as Open X-Embodiment has them: 1 for success on the last row."""
    source = HERE / "rlds" / "openx"
    truth = read_examples(next(source.glob("*val*")))
    assert [sum(known["steps/reward"]) for known in truth] == [1, 1] and len(truth) == 2
    episodes = imported("dmc-vb", source, tmp_path, "--split", "val", "--camera", "image", "--action-range", "-9", "9")
    for episode, known in zip(episodes, truth, strict=True):
        assert episode.reward[1:].tolist() == known["steps/reward"]
        assert episode.terminated.tolist() == [*[False] * len(known["steps/reward"]), True]
        assert last_frame_repeats(episode)
        actions = np.reshape(known["steps/action"], (-1, 2))
        np.testing.assert_allclose(episode.action[:-1] * 9, actions, rtol=1e-5)
    assert "2 episodes have one added frame" in capsys.readouterr().out
    assert json.loads((tmp_path / "import.json").read_text())["repeated"] == 2


def test_success_of_lerobot(tmp_path: Path) -> None:
    """Three episodes that LeRobot 0.6.1 wrote: `next.reward` and `next.success` are set on the last row alone."""
    pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="tables need pyarrow: pip install 'aime[import]'")
    source = HERE / "lerobot" / "success"
    table = parquet.read_table(next(source.glob("data/*/*.parquet"))).to_pydict()
    number, reward, success = (np.ravel(table[name]) for name in ("episode_index", "next.reward", "next.success"))
    assert (reward.sum(), success.sum()) == (3, 3)
    episodes = imported("lerobot", source, tmp_path)
    assert len(episodes) == 3
    for index, episode in enumerate(episodes):
        assert episode.reward[1:].tolist() == reward[number == index].tolist()
        assert episode.terminated[1:].tolist() == success[number == index].tolist()
        assert last_frame_repeats(episode)


def write_rlds(place: Path, steps: dict[str, np.ndarray], declared: dict[str, Any]) -> Path:
    """One episode; features in the order of the arrays."""
    place.mkdir(parents=True)
    length = len(next(iter(steps.values())))
    pixels = np.arange(length, dtype=np.uint8)[:, None] + np.zeros(16 * 16 * 3, np.uint8)
    values = {"steps/observation/image": feature([row.tobytes() for row in pixels])}
    values |= {f"steps/{name}": feature(rows.reshape(-1)) for name, rows in steps.items()}
    image = {"observation": {"featuresDict": {"features": {"image": tensor((16, 16, 3), "uint8", "bytes")}}}}
    step = {"sequence": {"feature": {"featuresDict": {"features": image | declared}}}}
    (place / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": step}}}))
    info = {"name": "rlds", "splits": [{"name": "train", "shardLengths": ["1"]}]}
    (place / "dataset_info.json").write_text(json.dumps(info))
    (place / "rlds-train.tfrecord-00000-of-00001").write_bytes(framed(example(values)))
    return place


def test_an_end_that_rlds_notes_on_a_frame_needs_no_other(tmp_path: Path) -> None:
    """RLDS as it prescribes itself: the last step is the frame that was reached, its action and reward are void."""
    steps = {
        "action": np.array([0.5, -0.5, 0.0]),
        "reward": np.array([0.0, 1.0, 0.0]),
        "is_terminal": np.array([0, 0, 1]),
    }
    declared = {"action": tensor((1,), "float32"), "reward": tensor((1,), "float32"), "is_terminal": tensor((), "bool")}
    (episode,) = imported(
        "dmc-vb", write_rlds(tmp_path / "in", steps, declared), tmp_path / "out", "--image-size", "16"
    )
    assert episode.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert episode.reward[1:].tolist() == [0, 1] and episode.terminated.tolist() == [False, False, True]
    assert np.isnan(episode.action[-1]).all()


@pytest.mark.parametrize(
    ("discount", "ends"), [([1, 0, 0], [False, False, True]), ([1, 1, 1], 3 * [False]), ([0, 0, 0], 3 * [False])]
)
def test_a_discount_of_0_ends_where_no_end_is_noted(tmp_path: Path, discount: list[float], ends: list[bool]) -> None:
    steps = {"action": np.array([0.5, -0.5, 0.0]), "discount": np.array(discount, float)}
    declared = {"action": tensor((1,), "float32"), "discount": tensor((), "float32")}
    (episode,) = imported(
        "dmc-vb", write_rlds(tmp_path / "in", steps, declared), tmp_path / "out", "--image-size", "16"
    )
    assert episode.terminated.tolist() == ends


def recorded(**fields: Any) -> Recorded:
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, 1, 3), np.uint8)
    return Recorded(iter([[frames[:2]], [frames[2:]]]), **fields)


def test_no_frame_is_added_where_nothing_would_be_lost() -> None:
    after = recorded(action=np.eye(3), reward=np.array([1.0, 2, 0]), terminated=np.array([False, True, False]))
    moved = arriving(after)
    assert moved.repeated == 0 and moved.action is after.action
    np.testing.assert_array_equal(moved.reward, [np.nan, 1, 2])
    np.testing.assert_array_equal(moved.terminated, [False, False, True])
    assert sum(len(block) for (block,) in moved.frames) == 3


@pytest.mark.parametrize("state", [None, np.ones((3, 2))])
def test_an_end_alone_gets_its_frame(state: np.ndarray | None) -> None:
    moved = arriving(recorded(action=np.eye(3), terminated=np.array([False, False, True]), state=state))
    assert [block[:, 0, 0, 0].tolist() for (block,) in moved.frames] == [[0, 1], [2], [2]]
    np.testing.assert_array_equal(moved.terminated, [False, False, False, True])
    np.testing.assert_array_equal(moved.action, [*np.eye(3), 3 * [np.nan]])
    assert moved.reward is None
    if state is not None:
        np.testing.assert_array_equal(moved.state, [*state, 2 * [np.nan]])


def test_a_reward_without_the_action_that_brought_it_is_refused() -> None:
    with pytest.raises(BadEpisode, match="its last row has a reward or an end and an action that is no number"):
        arriving(recorded(action=np.array([[0.0], [1], [np.nan]]), reward=np.ones(3)))
