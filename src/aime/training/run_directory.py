"""Preparation of a run directory: checks before the first step, manifest and config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aime.data import Dataset
from aime.data.manifest import MANIFEST
from aime.data.shards import Attribute
from aime.data.state_names import NAMES, order_mismatch
from aime.errors import AimeError
from aime.primitives.checksums import seal
from aime.primitives.config_io import flatten, from_plain, to_plain, to_yaml
from aime.primitives.files import write_atomically
from aime.primitives.locks import LOCK, only_writer
from aime.primitives.ranks import rank
from aime.runs.checkpoint_files import read_progress
from aime.runs.schedule import COMPLETE, Budget
from aime.training.config import TrainConfig
from aime.training.run_data import RunData, with_absolute_paths
from aime.world_model.config import ModelConfig
from aime.world_model.saved import CONFIG, RunInfo, checkpoint_directory, has_checkpoint, read_run


@contextmanager
def locked(config: TrainConfig) -> Iterator[None]:
    """Lock the run directory against other writers, on the first rank.

    Raises:
        AimeError: if another process writes there, or there is no run to resume.
    """
    if rank() > 0:
        yield
        return
    if config.resume:
        read_run(config.out)
    with only_writer(config.out):
        yield


def prepare(config: TrainConfig, data: RunData) -> None:
    """Check that config, data and initial weights fit together, then write RUN/manifest.json and RUN/config.yaml.

    The manifest is written before the first step, so that the training data of any checkpoint are known after a kill.
    Paths in the config are absolute.

    Raises:
        AimeError: if the run directory is in use, or data or weights do not fit the model; nothing is written then.
    """
    dataset = data.train
    _check_data(config, dataset)
    if config.resume:
        _check_same_model(config.model, read_run(config.out).model, f"{config.out}: --resume")
    else:
        _require_empty(config.out)
    if config.init_from is not None:
        start = read_run(config.init_from).model
        # a run may add heads and state observation to pretrained weights without them
        wanted = replace(config.model, control=start.control) if start.control.kind == "none" else config.model
        wanted = replace(wanted, state=start.state) if not start.state.width else wanted
        _check_same_model(wanted, start, f"{config.init_from}: --init-from")
        checkpoint_directory(config.init_from)
    plain = to_plain(with_absolute_paths(config))
    assert isinstance(plain, dict)
    model, preset = plain.pop("model"), plain.pop("preset")
    actions = {} if dataset.action_scale is None else {"actions": to_plain(dataset.action_scale)}
    names = _check_order(config, dataset)
    content = {"preset": preset, "model": model, "train": plain} | actions | ({"names": names} if names else {})
    data.manifest.write(config.out / MANIFEST)
    write_atomically(config.out / CONFIG, seal(to_yaml(content)).encode())


def _check_order(config: TrainConfig, dataset: Dataset) -> dict[str, Attribute]:
    """The names of actions and states, of this data or of the earlier training.

    Raises:
        AimeError: if their order differs from that of the earlier training.
    """
    start = config.out if config.resume else config.init_from
    before = {} if start is None else dict(read_run(start).names)
    order = order_mismatch(dataset.attributes, before, (dataset.action_width, dataset.state_width))
    if order:
        raise AimeError(f"{dataset.name}: has the {order} as in the data of {start}; import it again in that order")
    return before | {name: each for name, each in dataset.attributes.items() if name in NAMES}


def in_action_units_of(start: RunInfo, dataset: Dataset) -> tuple[Dataset, str]:
    """The data with actions in the units of the run that training starts from, and a note, possibly empty.

    Raises:
        AimeError: if the run has units and the data has none, or the data has actions outside the run's range.
    """
    own, learned = dataset.action_scale, start.action_scale
    if learned is None:
        if own is None or own.is_identity:
            return dataset, ""
        unknown = f"{start.path}: does not say in which units it learned actions; -1 to 1 is now {own}, as in the data"
        return dataset, unknown
    scaled = dataset.in_scale(learned)
    changed = own != learned and not (own is None and learned.is_identity)
    return scaled, f"actions keep the units of {start.path}: -1 to 1 is {learned}" if changed else ""


def _require_empty(out: Path) -> None:
    """Refuse a directory with files, except a lock and what a kill before the config was written leaves."""
    found = {path.name for path in out.iterdir() if path.name != LOCK and not path.match(".*.tmp")}
    if found <= {MANIFEST}:
        return
    if CONFIG in found and not has_checkpoint(out):
        raise AimeError(
            f"{out}: holds a run that ended before its first checkpoint; expected a new directory: take another --out, "
            "or give --resume, which starts that run again with its settings"
        )
    raise AimeError(
        f"{out}: exists and is not empty; expected a new directory: take another --out, or resume that run with "
        "--resume"
    )


def read_config(run: Path) -> TrainConfig:
    """The config of a run's last session.

    Raises:
        AimeError: if `run` is no run, or its config does not fit this version of aime.
    """
    found = read_run(run)
    plain = {**found.train, "model": to_plain(found.model), "preset": found.preset}
    return from_plain(TrainConfig, plain, str(run / CONFIG))


def is_complete(run: TrainConfig) -> bool:
    """Whether the run has used its whole budget and finished its last phase."""
    if not has_checkpoint(run.out):
        return False
    progress = read_progress(run.out)
    return progress.phase == COMPLETE and Budget(run.steps, run.minutes).share(progress.step, progress.seconds) >= 1


def _check_data(config: TrainConfig, dataset: Dataset) -> None:
    model = config.model
    for name, found, expected in (
        ("image size", dataset.image_size, model.image_size),
        ("action width", dataset.action_width, model.action_width),
    ):
        if found != expected:
            raise AimeError(
                f"{dataset.name}: {name} is {found}; expected the model's {expected}: take data of that size"
            )
    _check_state(config, dataset)


def _check_state(config: TrainConfig, dataset: Dataset) -> None:
    found, expected = dataset.state_width, config.model.state.width
    if expected and not found:
        raise AimeError(
            f"{dataset.name}: has no 'state'; expected one of width {expected} to observe: leave --observe-state "
            "out, or take data with states"
        )
    if expected and found != expected:
        raise AimeError(
            f"{dataset.name}: state width is {found}; expected the model's {expected}: take data with that state"
        )


def _check_same_model(wanted: ModelConfig, found: ModelConfig, where: str) -> None:
    wanted_plain, found_plain = flatten(to_plain(wanted)), flatten(to_plain(found))
    for name, value in wanted_plain.items():
        if found_plain[name] != value:
            raise AimeError(
                f"{where}: model.{name} is {found_plain[name]} there; expected {value}: give the same preset and "
                "model flags"
            )
