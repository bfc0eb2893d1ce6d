"""Training, held-out and recorded episodes of runs that are resumed, fine-tuned, moved, or given other data."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.agents.online import _link_data
from aime.benchmarking.isolated import refuse_other_settings
from aime.cli.train import configure
from aime.data import Episode, open_dataset, write_shard
from aime.data.identity import episode_digest
from aime.data.manifest import MANIFEST, Manifest, read_manifest
from aime.errors import AimeError
from aime.inference.learned_data import open_experience
from aime.inference.own_data import held_out_by, own_data
from aime.inference.unseen import open_unseen
from aime.primitives.checksums import write_sums
from aime.primitives.tensor_files import save_weights
from aime.training import run_directory
from aime.training.config import DynamicsFinetuningConfig, TrainConfig
from aime.training.run_data import open_run_data, record_finetuning
from aime.training.trainer import train
from aime.world_model.model import AIME
from aime.world_model.saved import AVERAGED_WEIGHTS, read_run

WEIGHTS = AIME(small_config()).state_dict()


def episodes(seeds: range) -> list[Episode]:
    return [synthetic_episode(12, seed, SIZE) for seed in seeds]


def digests(seeds: range) -> frozenset[str]:
    return frozenset(episode_digest(each.pixels, each.action, each.state) for each in episodes(seeds))


def fake_training(config: TrainConfig) -> Manifest:
    """All that a training leaves behind, without a step of it; the manifest."""
    with run_directory.locked(config):
        run_directory.prepare(config, open_run_data(config))
    save_weights(WEIGHTS, config.out / "checkpoint" / AVERAGED_WEIGHTS)
    found = read_run(config.out).manifest
    assert found is not None
    return found


def unseen(run: Path, data: Path | None = None) -> frozenset[str]:
    return frozenset(open_unseen(read_run(run), data, 2, 3, "all").dataset.digests)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Of a run on `a`, twenty episodes in two shards, of which five are held out; `b` has eight others."""
    write_shard(tmp_path / "a" / "0.h5", episodes(range(10)))
    write_shard(tmp_path / "a" / "1.h5", episodes(range(10, 20)))
    write_shard(tmp_path / "b" / "0.h5", episodes(range(20, 28)))
    return TrainConfig(str(tmp_path / "a"), tmp_path / "run", small_config(), "small", steps=1, held_out=0.25)


@pytest.fixture
def first(config: TrainConfig) -> Manifest:
    found = fake_training(config)
    assert len(found.learned) == 15 and len(found.held_out) == 5
    return found


def test_what_is_trained_on_is_what_the_manifest_says(config: TrainConfig) -> None:
    data = open_run_data(config)
    assert frozenset(data.train.digests) == data.manifest.learned
    assert data.validation is not None
    assert frozenset(data.validation.digests) < data.manifest.held_out
    assert data.manifest.learned | data.manifest.held_out == digests(range(20))
    assert not data.notes


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_resumed_with_another_share(config: TrainConfig, first: Manifest, share: float) -> None:
    again = fake_training(replace(config, resume=True, held_out=share))
    assert again.learned >= first.learned
    assert again.held_out <= first.held_out
    assert again.learned | again.held_out == digests(range(20))
    assert len(again.held_out) == {0.0: 0, 0.1: 2}.get(share, 5)
    if again.held_out:
        assert unseen(config.out) == again.held_out
    assert _says_fewer(open_run_data(replace(config, resume=True, held_out=share)).notes) == (share > 0.25)
    # back to the old share: what was learned in between stays learned
    assert fake_training(replace(config, resume=True)).learned >= again.learned


def _says_fewer(notes: tuple[str, ...]) -> bool:
    return any("are held out, not" in note for note in notes)


@pytest.mark.parametrize("share", [1.0, -0.1, math.nan])
def test_a_share_that_is_none_is_refused(config: TrainConfig, share: float) -> None:
    with pytest.raises(AimeError, match="held_out is"):
        replace(config, held_out=share)


def test_resumed_with_other_data(config: TrainConfig, first: Manifest, tmp_path: Path) -> None:
    again = fake_training(replace(config, resume=True, data=str(tmp_path / "b")))
    assert again.learned > first.learned
    assert unseen(config.out) == digests(range(20, 28)) - again.learned
    assert unseen(config.out, tmp_path / "a") == first.held_out
    # and with both, as one directory
    shutil.copytree(tmp_path / "a", tmp_path / "all")
    shutil.copy(tmp_path / "b" / "0.h5", tmp_path / "all" / "2.h5")
    third = fake_training(replace(config, resume=True, data=str(tmp_path / "all")))
    assert (third.learned, third.held_out) == (again.learned, again.held_out)


def test_shards_renamed_added_and_deleted_between_runs(config: TrainConfig, first: Manifest, tmp_path: Path) -> None:
    (tmp_path / "a" / "0.h5").rename(tmp_path / "a" / "z.h5")
    assert fake_training(replace(config, resume=True)) == first
    (tmp_path / "a" / "1.h5").unlink()
    write_shard(tmp_path / "a" / "new.h5", episodes(range(40, 60)))
    data = open_run_data(replace(config, resume=True))
    gone = len(first.learned & digests(range(10, 20)))
    assert f"{gone} episodes of earlier training are no longer in" in data.notes[0]
    assert data.manifest.learned >= first.learned
    assert data.manifest.held_out >= first.held_out
    assert not frozenset(data.train.digests) & first.held_out
    new = digests(range(40, 60)) & data.manifest.held_out
    assert len(new) == 8 - len(first.held_out & digests(range(10)))


def test_ancestors_are_remembered_without_them(config: TrainConfig, first: Manifest, tmp_path: Path) -> None:
    second = replace(config, out=tmp_path / "second", data=str(tmp_path / "b"), init_from=config.out)
    middle = fake_training(second)
    write_shard(tmp_path / "c" / "0.h5", episodes(range(60, 68)))
    third = replace(config, out=tmp_path / "third", data=str(tmp_path / "c"), init_from=second.out)
    fake_training(third)
    for place in (config.out, second.out):
        shutil.rmtree(place)
    resumed = fake_training(replace(third, resume=True, init_from=None, held_out=0.5))
    assert [Path(each.name).name for each in resumed.ancestors] == ["second", "run"]
    assert resumed.learned > middle.learned > first.learned
    assert not resumed.gap
    assert unseen(third.out, tmp_path / "a") == first.held_out
    assert unseen(third.out, tmp_path / "b") == digests(range(20, 28)) - middle.learned
    found = open_unseen(read_run(third.out), tmp_path / "a", 2, 3, "all")
    assert (found.provenance, found.dropped) == ("held out", 15)


def test_fine_tuning_on_the_same_data_holds_out_the_same(config: TrainConfig, first: Manifest, tmp_path: Path) -> None:
    same = fake_training(replace(config, out=tmp_path / "same", init_from=config.out))
    assert (same.learned, same.held_out) == (first.learned, first.held_out)
    greedy = replace(config, out=tmp_path / "greedy", held_out=0.9, init_from=config.out)
    assert fake_training(greedy).held_out == first.held_out
    whole = fake_training(replace(config, out=tmp_path / "whole", held_out=0.0, init_from=config.out))
    assert not whole.held_out
    data = open_run_data(replace(config, out=tmp_path / "late", init_from=tmp_path / "whole"))
    assert "earlier training used all of them" in data.notes[0]
    assert data.train.episodes == 20 and data.validation is None


def test_rounds_whose_shards_are_links(config: TrainConfig, first: Manifest, tmp_path: Path) -> None:
    """As `aime agent online` has them: links to the start's files, and a shard more each round."""
    info, whole = read_run(config.out), open_dataset(config.data)
    (tmp_path / "data").mkdir()
    _link_data(whole.part("train", held_out_by(info, whole)), tmp_path / "data")
    run, held_out = config.out, first.held_out
    for number in range(3):
        write_shard(tmp_path / "data" / f"round-{number}.h5", episodes(range(100 + 10 * number, 110 + 10 * number)))
        begun = replace(config, out=tmp_path / f"{number}", data=str(tmp_path / "data"), init_from=run)
        again = fake_training(begun)
        assert again.held_out >= held_out
        run, held_out = begun.out, again.held_out
        assert unseen(run, tmp_path / "a") == first.held_out
    assert len(again.ancestors) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    moved = open_dataset(tmp_path / "moved")
    _link_data(moved, tmp_path / "data")
    assert open_dataset(tmp_path / "data").episodes == 50


def test_dynamics_finetuning_is_remembered(config: TrainConfig, first: Manifest) -> None:
    train_part = open_run_data(config).train
    record_finetuning(config.out, train_part.select(range(10)), train_part.select([10, 11]))
    found = read_run(config.out).manifest
    assert found is not None
    (record,) = found.sources
    assert frozenset(record.finetuned) == frozenset(train_part.digests[:10])
    assert frozenset(record.left_out) == frozenset(train_part.digests[10:12])
    assert (found.learned, found.held_out) == (first.learned, first.held_out)


def test_a_run_of_before_says_so_for_ever(config: TrainConfig, first: Manifest) -> None:
    (config.out / MANIFEST).unlink()
    data = open_run_data(replace(config, resume=True))
    assert "the record of earlier training data is incomplete" in data.notes[0]
    again = fake_training(replace(config, resume=True))
    assert again.forgotten
    assert open_unseen(read_run(config.out), None, 2, 3, "all").provenance == "unknown"
    child = fake_training(replace(config, out=config.out.parent / "child", init_from=config.out))
    assert "it starts from" in child.gap


def test_a_checkpoint_has_the_manifest_too(config: TrainConfig) -> None:
    quick = replace(
        config,
        batch=1,
        length=4,
        dynamics_finetuning=DynamicsFinetuningConfig(share=0.0),
        pictures=False,
        device="cpu",
        precision="fp32",
    )
    train(quick)
    assert read_manifest(config.out / "checkpoint" / MANIFEST) == read_run(config.out).manifest
    (config.out / MANIFEST).unlink()
    assert unseen(config.out) == open_run_data(replace(quick, out=config.out.parent / "x")).manifest.held_out


def resume(run: Path, *flags: str) -> TrainConfig:
    return configure(["--resume", "--out", str(run), *flags])


def test_resumed_from_another_directory(tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = replace(config, data="a", out=Path("run"))
    fake_training(relative)
    refuse_other_settings(relative)
    write_shard(tmp_path / "elsewhere" / "a" / "0.h5", episodes(range(70, 80)))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / "run").data == str(tmp_path / "a")
    assert read_run(tmp_path / "run").data == str(tmp_path / "a")


def test_resumed_after_run_and_data_moved(tmp_path: Path, config: TrainConfig, first: Manifest) -> None:
    (tmp_path / "new").mkdir()
    for name in ("a", "run"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    found = resume(tmp_path / "new" / "run")
    assert found.data == str(tmp_path / "new" / "a")
    again = fake_training(found)
    assert (again.learned, again.held_out, len(again.sources)) == (first.learned, first.held_out, 2)
    assert own_data(read_run(found.out)) == found.data


def test_edited_data_in_the_config_is_refused(tmp_path: Path, config: TrainConfig, first: Manifest) -> None:
    path = tmp_path / "run" / "config.yaml"
    edited = path.read_text().replace(str(tmp_path / "a"), str(tmp_path / "b"))
    path.write_text("".join(line for line in edited.splitlines(True) if not line.startswith("#")))
    with pytest.raises(AimeError, match=r"train\.data is .*b, but by manifest\.json .* trained on .*a; .*--data"):
        own_data(read_run(path.parent))
    assert resume(path.parent, "--data", str(tmp_path / "a")).data == str(tmp_path / "a")


def test_several_sources_are_found_again_with_their_shares(tmp_path: Path, config: TrainConfig) -> None:
    fake_training(replace(config, data=f"{tmp_path / 'a'}, {tmp_path / 'b'}=0.3"))
    (tmp_path / "new").mkdir()
    for name in ("a", "b", "run"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    assert resume(tmp_path / "new" / "run").data == f"{tmp_path / 'new' / 'a'}, {tmp_path / 'new' / 'b'}=0.3"


def test_replaced_data_is_not_gone_on_with_unasked(tmp_path: Path, config: TrainConfig, first: Manifest) -> None:
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(AimeError, match=r"data of .*run is not there any more.* by --data$"):
        resume(config.out)
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    with pytest.raises(AimeError, match=r"shares no episode with the data that .*run was trained on.* by --data$"):
        resume(config.out)
    asked = resume(config.out, "--data", str(tmp_path / "a"))
    assert fake_training(asked).learned > first.learned


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a manifest"),
        ("[1]", "format: found None, expected 1"),
        ('{"format": 9}', "format: found 9, expected 1"),
        ('{"format": 1, "sources": [], "ancestors": [], "forgotten": "no"}', "forgotten"),
        ('{"format": 1, "sources": [{"name": 3}], "ancestors": [], "forgotten": false}', "sources"),
        ("[" * 100_000, "not a manifest"),
    ],
)
def test_a_damaged_manifest_is_refused(config: TrainConfig, first: Manifest, content: str, words: str) -> None:
    (config.out / MANIFEST).write_text(content)
    with pytest.raises(AimeError, match=words) as problem:
        unseen(config.out)
    assert str(config.out / MANIFEST) in str(problem.value) and "\n" not in str(problem.value)


def test_what_is_no_digest_is_refused(config: TrainConfig, first: Manifest) -> None:
    path = config.out / MANIFEST
    path.write_text(path.read_text().replace(first.sources[0].learned[0], "../../etc/passwd"))
    with pytest.raises(AimeError, match="expected 64 hexadecimal digits"):
        unseen(config.out)


def test_a_manifest_survives_its_file(tmp_path: Path, first: Manifest) -> None:
    first.after("x", None).write(tmp_path / MANIFEST)
    assert read_manifest(tmp_path / MANIFEST) == first.after("x", None)


@pytest.mark.parametrize("kind", ["emptied", "of another run"])
def test_a_manifest_that_lacks_what_the_checkpoint_learned_is_refused(
    tmp_path: Path, config: TrainConfig, first: Manifest, kind: str
) -> None:
    shutil.copy(config.out / MANIFEST, config.out / "checkpoint" / MANIFEST)
    other = replace(config, data=str(tmp_path / "b"), out=tmp_path / "other")
    found = fake_training(other) if kind == "of another run" else Manifest()
    found.write(config.out / MANIFEST)
    with pytest.raises(AimeError, match=f"{MANIFEST}: lacks 15 episodes") as problem:
        unseen(config.out, tmp_path / "a")
    assert "\n" not in str(problem.value)
    (config.out / MANIFEST).unlink()
    assert unseen(config.out, tmp_path / "a") == first.held_out


def test_a_bit_of_the_checkpoints_manifest_is_missed(config: TrainConfig, first: Manifest) -> None:
    kept = config.out / "checkpoint" / MANIFEST
    shutil.copy(config.out / MANIFEST, kept)
    write_sums(kept.parent, [MANIFEST, AVERAGED_WEIGHTS])
    assert unseen(config.out) == first.held_out
    digit = first.sources[0].learned[0]
    kept.write_text(kept.read_text().replace(digit, f"{'1' if digit[0] == '0' else '0'}{digit[1:]}"))
    with pytest.raises(AimeError, match=f"{MANIFEST}: damaged"):
        unseen(config.out)


def test_data_whose_joints_come_in_another_order_is_refused(tmp_path: Path) -> None:
    for name, order in (("a", ("throttle", "steer")), ("swapped", ("steer", "throttle")), ("other", ("x", "steer"))):
        named = {"action_names": json.dumps(dict.fromkeys(order, 1))}
        write_shard(tmp_path / name / "0.h5", episodes(range(8)), named)
    write_shard(tmp_path / "unnamed" / "0.h5", episodes(range(8, 12)))
    config = TrainConfig(str(tmp_path / "a"), tmp_path / "run", small_config(), "small", steps=1)
    fake_training(config)
    swapped, words = str(tmp_path / "swapped"), "action steer, throttle, expected the order throttle, steer as in"
    for changed in (
        replace(config, resume=True, data=swapped),
        replace(config, out=tmp_path / "tuned", init_from=config.out, data=swapped),
    ):
        with pytest.raises(AimeError, match=words):
            fake_training(changed)
    assert not (tmp_path / "tuned" / MANIFEST).exists()
    with pytest.raises(AimeError, match=words):
        unseen(config.out, tmp_path / "swapped")
    with pytest.raises(AimeError, match=words):
        open_experience(read_run(config.out), swapped)
    fake_training(replace(config, resume=True, data=str(tmp_path / "unnamed")))
    with pytest.raises(AimeError, match=words):  # the run remembers
        unseen(config.out, tmp_path / "swapped")
    fake_training(replace(config, resume=True, data=str(tmp_path / "other")))


@pytest.mark.parametrize(("rate", "told"), [(29.97, False), (10.0, True)])
def test_sources_of_another_rate_are_told(tmp_path: Path, rate: float, told: bool) -> None:
    for name, fps in (("a", 30.0), ("b", rate)):
        write_shard(tmp_path / f"{name}.h5", episodes(range(4) if name == "a" else range(4, 8)), {"fps": fps})
    config = TrainConfig(f"{tmp_path}/a.h5, {tmp_path}/b.h5", tmp_path / "run", small_config(), "small", steps=1)
    assert any("10 to 30 frames a second" in note for note in open_run_data(config).notes) == told
