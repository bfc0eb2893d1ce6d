"""Imports that are killed, resumed, cut and rolled back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from rich.console import Console

from aime.data import Dataset, open_dataset
from aime.data.action_scale import ActionScale
from aime.errors import AimeError
from aime.io.importers import assemble, plan, run
from aime.io.importers.interface import BadEpisode, Facts, Item, Recorded, Survey
from aime.io.importers.plan import Ledger
from aime.io.importers.run import ImportRequest, import_episodes

QUIET = Console(quiet=True)
FRAME = 16 * 16 * 3


@dataclass(frozen=True)
class Synthetic:
    """Episodes of given lengths; those that are listed as bad break off after so many frames."""

    lengths: tuple[int, ...]
    bad: tuple[int, ...] = ()
    size: int = 16

    @property
    def facts(self) -> Facts:
        return Facts(2, {"clock": 1})

    def survey(self) -> Survey:
        return Survey([Item(f"episode {n}", length * FRAME, (n,)) for n, length in enumerate(self.lengths)])

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        number = int(item.place[0])
        return np.random.default_rng(number).uniform(-5, 5, (self.lengths[number], 2))

    def read(self, item: Item) -> Recorded:
        length = self.lengths[int(item.place[0])]
        return Recorded(self._frames(item), self.actions(item), state=np.arange(length, dtype=np.float64)[:, None])

    def _frames(self, item: Item) -> Iterator[list[np.ndarray]]:
        number = int(item.place[0])
        for start in range(0, self.lengths[number], 5):
            count = min(5, self.lengths[number] - start)
            values = np.arange(start, start + count, dtype=np.uint8) + 100 * (number % 2)
            yield [np.broadcast_to(values[:, None, None, None], (count, self.size, self.size, 3))]
        if number in self.bad:
            raise BadEpisode("is broken at the end; mend it")


WISH = ImportRequest("synthetic", "here", image_size=16)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard holds 20 frames, an episode 40, a job 50; and nobody waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(run, "SHARD_BYTES", 20 * FRAME)
    monkeypatch.setattr(assemble, "EPISODE_BYTES", 40 * FRAME)
    monkeypatch.setattr(plan, "JOB_BYTES", 50 * FRAME)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


LENGTHS = (7, 12, 3, 30, 9, 100, 2, 18, 41)


def clocks(dataset: Dataset) -> list[list[int]]:
    found = []
    for episode in dataset:
        assert episode.state is not None
        found.append([int(episode.state[0, 0]), len(episode)])
    return found


def test_shards_hold_the_episodes_in_order_and_long_ones_in_stretches(tmp_path: Path) -> None:
    report = import_episodes(Synthetic(LENGTHS), tmp_path, WISH, QUIET)
    dataset = open_dataset(tmp_path)
    assert clocks(dataset) == [
        *([0, 7], [0, 12], [0, 3], [0, 30], [0, 9]),
        *([0, 40], [40, 40], [80, 20], [0, 2], [0, 18], [0, 40], [40, 1]),
    ]
    assert report.episodes == 12 and report.frames == sum(LENGTHS) and report.cut == 2
    # nothing followed the last action of the recording, but the cut between two stretches is no end
    np.testing.assert_array_equal(dataset.read(5).pixels[:, 0, 0, 0], 100 + np.arange(40))
    assert np.isfinite(dataset.read(5).action).all()


def test_actions_are_scaled_by_their_range_and_come_back(tmp_path: Path) -> None:
    source = Synthetic(LENGTHS)
    report = import_episodes(source, tmp_path, WISH, QUIET)
    everything = np.concatenate([source.actions(item) for item in source.survey().items])
    np.testing.assert_allclose(report.action_low, everything.min(axis=0))
    np.testing.assert_allclose(report.action_high, everything.max(axis=0))
    dataset = open_dataset(tmp_path)
    scale = ActionScale.of_attributes(dataset.attributes)
    assert scale is not None
    stored = np.concatenate([episode.action for episode in dataset])
    assert stored.min() == -1 and stored.max() == 1
    np.testing.assert_allclose(scale.to_source(stored), everything, atol=1e-5)


class Killer:
    """Counts the calls that change the disk, and dies at one of them as a killed process does: without a word."""

    def __init__(self, patch: pytest.MonkeyPatch, step: int) -> None:
        self.calls, self._step = 0, step
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            self.calls += 1
            if self.calls == self._step:
                os._exit(9)
            function(*arguments, **options)

        return call


def killed(source: Synthetic, out: Path, request: ImportRequest, step: int) -> bool:
    """Import in a forked process that dies at a step; whether it got that far."""
    child = os.fork()
    if child == 0:
        Killer(pytest.MonkeyPatch(), step)
        import_episodes(source, out, request, QUIET)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    source, request = (
        Synthetic((7, 12, 30, 100, 18, 41), bad=(1, 3)),
        ImportRequest("synthetic", "here", 16, skip_bad=True),
    )
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch, 0)
        import_episodes(source, tmp_path / "whole", request, QUIET)
    expected = tree(tmp_path / "whole")
    assert len([name for name in expected if name.endswith(".h5")]) >= 4
    assert killer.calls >= 20
    for step in np.linspace(1, killer.calls, 20).astype(int).tolist():
        out = tmp_path / f"killed-{step}"
        assert killed(source, out, request, step)
        killed(source, out, request, 7)  # and again, while it goes on
        import_episodes(source, out, request, QUIET)
        assert tree(out) == expected, f"killed at call {step}"


def test_the_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    # the bounds that `small_parts` sets hold in this process alone, so here the real ones do
    source = Synthetic((40,) * 30)
    for workers in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "SHARD_BYTES", 64 * 2**20)
            patch.setattr(assemble, "EPISODE_BYTES", 128 * 2**20)
            request = ImportRequest("synthetic", "here", 16, workers=workers)
            import_episodes(source, tmp_path / str(workers), request, QUIET)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_a_bad_episode_stops_the_import_or_leaves_no_trace(tmp_path: Path) -> None:
    source = Synthetic(LENGTHS, bad=(1, 5))
    with pytest.raises(AimeError, match="episode 1: is broken at the end"):
        import_episodes(source, tmp_path, WISH, QUIET)
    report = import_episodes(source, tmp_path, ImportRequest("synthetic", "here", 16, skip_bad=True), QUIET)
    assert [text.split(":")[0] for text in report.dropped] == ["episode 1", "episode 5"]
    assert clocks(open_dataset(tmp_path)) == [
        *([0, 7], [0, 3], [0, 30], [0, 9], [0, 2], [0, 18], [0, 40], [40, 1]),
    ]
    assert report.frames == sum(LENGTHS) - 112
    assert json.loads((tmp_path / "import.json").read_text())["dropped"] == report.dropped


def test_a_source_that_was_mended_before_anything_was_done_is_taken(tmp_path: Path) -> None:
    with pytest.raises(AimeError):
        import_episodes(Synthetic((9,), bad=(0,)), tmp_path, WISH, QUIET)
    assert import_episodes(Synthetic((8,)), tmp_path, WISH, QUIET).frames == 8


def test_two_imports_into_one_directory_do_not_meet(tmp_path: Path) -> None:
    with Ledger(tmp_path).locked(), pytest.raises(AimeError, match=rf"process {os.getpid()} on .* is writing to it"):
        import_episodes(Synthetic((5,)), tmp_path, WISH, QUIET)
    import_episodes(Synthetic((5,)), tmp_path, WISH, QUIET)


def test_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="no episode could be taken"):
        import_episodes(Synthetic((5,), bad=(0,)), tmp_path, ImportRequest("s", "here", 16, skip_bad=True), QUIET)


def test_another_import_or_other_files_in_the_way_are_refused(tmp_path: Path) -> None:
    import_episodes(Synthetic((5, 6)), tmp_path / "a", WISH, QUIET)
    before = tree(tmp_path / "a")
    with pytest.raises(AimeError, match="image_size was 16, is now 32"):
        import_episodes(Synthetic((5, 6)), tmp_path / "a", ImportRequest("synthetic", "here", 32), QUIET)
    with pytest.raises(AimeError, match="the source has changed"):
        import_episodes(Synthetic((5, 6, 7)), tmp_path / "a", WISH, QUIET)
    with pytest.raises(AimeError, match="the source has changed"):
        import_episodes(Synthetic((5, 7)), tmp_path / "a", WISH, QUIET)
    import_episodes(Synthetic((5, 6)), tmp_path / "a", WISH, QUIET)
    assert tree(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("precious")
    with pytest.raises(AimeError, match=r"contains mine\.txt; expected an empty directory"):
        import_episodes(Synthetic((5,)), tmp_path / "b", WISH, QUIET)


def test_numbers_outside_a_given_range_are_clipped_and_counted(tmp_path: Path) -> None:
    source = Synthetic((50,))
    report = import_episodes(source, tmp_path, ImportRequest("synthetic", "here", 16, action_range=(-4, 4)), QUIET)
    action = source.actions(source.survey().items[0])
    assert report.clipped == (np.abs(action) > 4).sum() > 0
    np.testing.assert_allclose(open_dataset(tmp_path).read(0).action, np.clip(action[:40] / 4, -1, 1), atol=1e-6)
