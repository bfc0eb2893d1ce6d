"""What a run was trained on is never taken for unseen, wherever it lies, whatever it is called."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import synthetic_episode
from tests.inference.runs import write_manifest
from tests.models import SIZE, small_config

from aime.data import Episode, write_shard
from aime.data.action_scale import ActionScale
from aime.data.identity import episode_digest, half_of
from aime.data.manifest import Ancestor, Manifest, SourceRecord
from aime.errors import AimeError
from aime.inference.unseen import Unseen, open_unseen
from aime.world_model.saved import RunInfo


def episodes(seeds: range) -> list[Episode]:
    return [synthetic_episode(12, seed, SIZE) for seed in seeds]


def digests(seeds: range) -> set[str]:
    return {episode_digest(each.pixels, each.action, each.state) for each in episodes(seeds)}


def info_of(run: Path, data: Path | str, share: float = 0.25, manifest: bool = True) -> RunInfo:
    """A run that trained on all of the data but a share."""
    run.mkdir(parents=True, exist_ok=True)
    if manifest:
        write_manifest(run, data, share)
    return RunInfo(run, "small", small_config(), {"data": str(data), "seed": 0, "held_out": share})


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    """A run on `data`, two shards of ten episodes each, seeds 0 to 19, of which five are held out."""
    write_shard(tmp_path / "data" / "a.h5", episodes(range(10)))
    write_shard(tmp_path / "data" / "b.h5", episodes(range(10, 20)))
    return info_of(tmp_path / "run", tmp_path / "data")


def unseen(info: RunInfo, data: Path | str | None = None, part: str = "all") -> Unseen:
    return open_unseen(info, data, 2, 3, part)  # type: ignore[arg-type]


def held_out(info: RunInfo) -> frozenset[str]:
    assert info.manifest is not None
    assert len(info.manifest.held_out) == 5 and len(info.manifest.learned) == 15
    return info.manifest.held_out


def test_units_that_the_run_does_not_say_are_named(info: RunInfo, tmp_path: Path) -> None:
    scale = ActionScale((-2.0, 0.0), (2.0, 5.0))
    write_shard(tmp_path / "other" / "0.h5", episodes(range(30, 34)), scale.attributes())
    assert f"; the run does not say the units of its actions: -1 to 1 is read as {scale}" in (
        unseen(info, tmp_path / "other").title
    )
    known = replace(info, action_scale=ActionScale((-2.0, 0.0), (2.0, 5.0)))
    assert "units" not in unseen(known, tmp_path / "other").title
    assert "units" not in unseen(info).title


def test_the_halves_of_what_is_held_out(info: RunInfo) -> None:
    found = {part: set(unseen(info, part=part).dataset.digests) for part in ("test", "validation", "all")}
    assert found["test"] and found["validation"]
    assert not found["test"] & found["validation"]
    assert found["test"] | found["validation"] == found["all"] == held_out(info)
    assert {half_of(each) for each in found["test"]} == {"test"}
    assert unseen(info, part="test").title == "test part, held out by the run"


def test_a_copy_and_links_are_known(info: RunInfo, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "z.h5").symlink_to(tmp_path / "data" / "a.h5")
    (tmp_path / "links" / "y.h5").hardlink_to(tmp_path / "data" / "b.h5")
    for place in ("copy", "links"):
        found = unseen(info, tmp_path / place)
        assert set(found.dataset.digests) == held_out(info)
        assert (found.provenance, found.dropped) == ("held out", 15)


def test_a_superset_is_taken_without_what_was_learned(info: RunInfo, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "all")
    write_shard(tmp_path / "all" / "0.h5", episodes(range(20, 26)))
    for data in (tmp_path / "all", f"{tmp_path / 'all'}, {tmp_path / 'data'}=0.5"):
        if "," in str(data):  # the same episodes in two sources count once
            write_shard(tmp_path / "data" / "c.h5", episodes(range(20, 22)))
        found = unseen(info, data)
        assert sorted(found.dataset.digests) == sorted(held_out(info) | digests(range(20, 26)))
        assert (found.provenance, found.foreign) == ("not in manifest", 6)
        assert "6 episodes not in the run's manifest: unseen unless changed copies" in found.title
        assert "episodes that it was trained on are left out" in found.title


def test_a_part_of_what_was_learned_is_refused(info: RunInfo, tmp_path: Path) -> None:
    assert info.manifest is not None
    seed = next(seed for seed in range(20) if digests(range(seed, seed + 1)) <= info.manifest.learned)
    write_shard(tmp_path / "one" / "0.h5", episodes(range(seed, seed + 1)))
    with pytest.raises(AimeError, match=r"was trained on all of its 1 episodes; expected unseen ones: .*--data$"):
        unseen(info, tmp_path / "one")


def test_shards_added_deleted_and_renamed(info: RunInfo, tmp_path: Path) -> None:
    data = tmp_path / "data"
    kept = held_out(info)
    write_shard(data / "zz.h5", episodes(range(20, 30)))
    assert set(unseen(info).dataset.digests) == kept | digests(range(20, 30))
    (data / "zz.h5").rename(data / "0.h5")
    (data / "b.h5").rename(data / "1.h5")
    assert set(unseen(info).dataset.digests) == kept | digests(range(20, 30))
    (data / "a.h5").unlink()
    assert set(unseen(info).dataset.digests) == (kept & digests(range(10, 20))) | digests(range(20, 30))


def test_other_data_is_halved_by_content(info: RunInfo, tmp_path: Path) -> None:
    write_shard(tmp_path / "other" / "0.h5", episodes(range(40, 52)))
    test, validation = (unseen(info, tmp_path / "other", part) for part in ("test", "validation"))
    assert set(test.dataset.digests) == {each for each in digests(range(40, 52)) if half_of(each) == "test"}
    assert test.dataset.episodes + validation.dataset.episodes == 12
    assert test.title.startswith("test part; not in the run's manifest: unseen unless changed copies")


def test_an_empty_part_is_refused_and_the_others_named(info: RunInfo, tmp_path: Path) -> None:
    alike = [each for seed in range(40, 60) for each in episodes(range(seed, seed + 1))]
    alike = [each for each in alike if half_of(episode_digest(each.pixels, each.action, each.state)) == "validation"]
    write_shard(tmp_path / "half" / "0.h5", alike)
    words = rf"none of its {len(alike)} unseen episodes is of the test part.*--part validation .*or --part all$"
    with pytest.raises(AimeError, match=words):
        unseen(info, tmp_path / "half", "test")
    assert unseen(info, tmp_path / "half", "validation").dataset.episodes == len(alike)


def test_run_and_data_moved_together(info: RunInfo, tmp_path: Path) -> None:
    before = set(unseen(info).dataset.digests)
    (tmp_path / "new").mkdir()
    for name in ("data", "run"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    moved = RunInfo(tmp_path / "new" / "run", "small", small_config(), info.train)
    assert set(unseen(moved).dataset.digests) == before


def test_data_that_is_gone_is_asked_for(info: RunInfo, tmp_path: Path) -> None:
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(AimeError, match=r"data of .*run is not there any more, expected .* by --data"):
        unseen(info)
    assert set(unseen(info, tmp_path / "elsewhere").dataset.digests) == held_out(info)


def test_other_data_of_the_same_name_is_not_taken(info: RunInfo, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    write_shard(tmp_path / "data" / "a.h5", episodes(range(60, 66)))
    with pytest.raises(AimeError, match=r"shares no episode with the data that .* was trained on.*by --data"):
        unseen(info)


def test_a_relative_name_means_the_runs_data_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, seeds in (("here", range(8)), ("there", range(60, 68))):
        write_shard(tmp_path / place / "mydata" / "0.h5", episodes(seeds))
    monkeypatch.chdir(tmp_path / "here")
    info = info_of(tmp_path / "run", "mydata")
    monkeypatch.chdir(tmp_path / "there")
    assert set(unseen(info).dataset.digests) < digests(range(8))
    assert set(unseen(info, "mydata").dataset.digests) == digests(range(60, 68))


def test_a_run_without_a_manifest_says_so(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "a.h5", episodes(range(8)))
    info = info_of(tmp_path / "run", tmp_path / "data", manifest=False)
    found = unseen(info)
    assert found.provenance == "unknown"
    assert "unknown whether the run was trained on it: the run has no manifest" in found.title
    assert set(found.dataset.digests) == digests(range(6, 8))  # as runs without a manifest held out
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert unseen(info, tmp_path / "copy").provenance == "unknown"


def record(learned: range, **roles: range) -> SourceRecord:
    found = {role: tuple(sorted(digests(seeds))) for role, seeds in {"learned": learned, **roles}.items()}
    return SourceRecord("x", "/nowhere", **found)  # type: ignore[arg-type]


def test_ancestors_and_calibration_count_as_learned(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "a.h5", episodes(range(20)))
    first = Manifest(sources=(record(range(4)),))
    second = Manifest(sources=(record(range(4, 6), left_out=range(6, 8), finetuned=range(4, 6)),)).after("first", first)
    third = Manifest(sources=(record(range(8, 10), held_out=range(10, 14)),)).after("second", second)
    third.write(tmp_path / "run" / "manifest.json")
    info = RunInfo(tmp_path / "run", "small", small_config(), {"data": "x", "seed": 0})
    found = unseen(info, tmp_path / "data")
    assert set(found.dataset.digests) == digests(range(10, 20))
    assert (found.dropped, found.foreign, found.provenance) == (10, 6, "not in manifest")


def test_an_ancestor_without_a_manifest_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "a.h5", episodes(range(8)))
    manifest = write_manifest(tmp_path / "run", tmp_path / "data", 0.25).after("old-run", None)
    manifest.write(tmp_path / "run" / "manifest.json")
    info = RunInfo(tmp_path / "run", "small", small_config(), {"data": str(tmp_path / "data"), "seed": 0})
    assert unseen(info).provenance == "unknown"
    assert "it starts from old-run, which has no complete manifest" in unseen(info).title
    assert manifest.ancestors == (Ancestor("old-run", known=False),)


POOL = episodes(range(12))
PLACED = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=24)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trained=PLACED, judged=PLACED)
def test_no_arrangement_of_episodes_in_files_hides_one(
    trained: list[tuple[int, int, int]],
    judged: list[tuple[int, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Renamed, copied, merged, split, duplicated, dropped: each episode of `judged` lies in some shard of some source.

    What is unseen is known from the seeds alone, by which the episodes were made.
    """
    place = tmp_path_factory.mktemp("arrangement")
    own = {POOL_DIGESTS[number] for number, *_ in trained}
    info = info_of(place / "run", arrange(place / "trained", trained), 0.3)
    assert info.manifest is not None
    assert info.manifest.learned | info.manifest.held_out == own
    expected = {POOL_DIGESTS[number] for number, *_ in judged} - info.manifest.learned
    data = arrange(place / "judged", judged)
    if not expected:
        with pytest.raises(AimeError, match="was trained on all of its"):
            unseen(info, data)
        return
    found = unseen(info, data).dataset.digests
    assert sorted(found) == sorted(expected)
    for part in ("test", "validation"):
        half = {each for each in expected if half_of(each) == part}
        if half:
            assert set(unseen(info, data, part).dataset.digests) == half


POOL_DIGESTS = [episode_digest(each.pixels, each.action, each.state) for each in POOL]


def arrange(place: Path, placed: list[tuple[int, int, int]]) -> str:
    """Episodes by their number in the pool, the shard and the source that each is put in; the sources' names."""
    names = []
    for source in {source for *_, source in placed}:
        names.append(str(place / f"source-{source}"))
        for shard in {shard for _, shard, other in placed if other == source}:
            chosen = [POOL[number] for number, *where in placed if where == [shard, source]]
            write_shard(place / f"source-{source}" / f"{shard}.h5", chosen)
    return ", ".join(names)
