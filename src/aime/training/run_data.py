"""The data of a run: the training and validation split, given the episodes that earlier training used."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aime.data import Dataset, open_dataset
from aime.data.identity import half_of
from aime.data.manifest import MANIFEST, Manifest, SourceRecord, find_manifest
from aime.data.sources import is_bundled, parse_sources, with_shares
from aime.data.splitting import Rule, count_held_out
from aime.training.config import TrainConfig
from aime.world_model.saved import has_checkpoint, read_run

MAX_RATE_RATIO = 1.05
"""Largest ratio of two sources' frame rates without a note."""


class RunData(NamedTuple):
    """Training and validation data, and their record."""

    train: Dataset
    validation: Dataset | None
    """For pictures; None if no episode of the validation half is held out."""
    manifest: Manifest
    """Includes this training; not written yet."""
    notes: tuple[str, ...]
    """Lines to print: differences from the earlier data or from the config."""

    def with_train(self, train: Dataset, note: str) -> RunData:
        """Replace the training data by `train`, in other action units, and add a note unless it is empty."""
        validation = None if self.validation is None else self.validation.in_scale(train.action_scale)
        return self._replace(train=train, validation=validation, notes=(*self.notes, *([note] if note else ())))


def open_run_data(config: TrainConfig) -> RunData:
    """Open the run's data and choose the held-out episodes by their content.

    Episodes that the run or a run it starts from was trained on are never held out. Held-out episodes stay held out,
    unless `config.held_out` is lowered; new episodes are split by the usual rule.

    Raises:
        AimeError: if the data cannot be read, does not fit the resumed run, or leaves no training episode.
    """
    whole = open_dataset(config.data)
    before = _earlier_training(config)
    if config.resume and has_checkpoint(config.out):
        whole = whole.in_scale(read_run(config.out).action_scale)
    rule = Rule(config.held_out, before.learned, before.held_out, keep=config.resume and not _lowered(config))
    sources = whole.by_source
    held_out = rule.choose([digests for _, digests in sources])
    train = whole.part("train", held_out)
    validation = [number for number, each in enumerate(whole.digests) if each in held_out and half_of(each) != "test"]
    manifest = before.trained_on(
        [SourceRecord.of(each, config.out, known.digests, held_out) for each, known in sources]
    )
    return RunData(
        train, whole.select(validation) if validation else None, manifest, _notes(config, before, whole, held_out)
    )


def record_finetuning(run: Path, learned: Dataset, left_out: Dataset | None) -> None:
    """Record in the run's manifest the episodes for dynamics fine-tuning and those for calibration.

    Raises:
        AimeError: if the manifest is damaged or cannot be written.
    """
    manifest = find_manifest(run)
    assert manifest is not None, "written before the first step"
    manifest.finetuned_on(learned.digests, () if left_out is None else left_out.digests).write(run / MANIFEST)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The config with absolute paths."""
    start = config.init_from
    if start is not None and not is_bundled(start):
        start = Path(os.path.abspath(start))
    return replace(
        config,
        data=_absolute(config.data),
        out=Path(os.path.abspath(config.out)),
        init_from=start,
    )


def _absolute(data: str) -> str:
    sources = parse_sources(data)
    places = [each.place for each in sources]
    if len(places) > 1 and any("," in place for place in places):
        return data  # a comma in a path would be read as a separator; the manifest has the absolute paths
    return ", ".join(with_shares(places, [each.weight for each in sources]))


def _earlier_training(config: TrainConfig) -> Manifest:
    """The record of all earlier training of this run and of the run that it starts from."""
    manifest = read_run(config.out).manifest if config.resume else None
    if manifest is not None:
        return manifest
    if config.resume and has_checkpoint(config.out):
        return Manifest(forgotten=True)
    if config.init_from is None:
        return Manifest()
    start = read_run(config.init_from)
    bundled = is_bundled(config.init_from)
    return Manifest().after(str(config.init_from) if bundled else str(start.path.resolve()), start.manifest)


def _lowered(config: TrainConfig) -> bool:
    return config.held_out < float(read_run(config.out).train.get("held_out", config.held_out))


def _notes(config: TrainConfig, before: Manifest, whole: Dataset, held_out: frozenset[str]) -> tuple[str, ...]:
    episodes = frozenset(whole.digests)
    notes = []
    if before.gap:
        notes.append(f"the record of earlier training data is incomplete: {before.gap}; evaluations will say so")
    gone = frozenset().union(*(each.learned for each in before.current)) - episodes if config.resume else frozenset()
    if gone:
        notes.append(
            f"{len(gone)} episodes of earlier training are no longer in {whole.name}; training continues without them, "
            "and they stay recorded as training data"
        )
    slowest, *_, fastest = whole.rates if len(whole.rates) > 1 else (1.0, 1.0)
    if fastest > MAX_RATE_RATIO * slowest:
        notes.append(
            f"{whole.name} has {slowest:g} to {fastest:g} frames a second; the model treats every frame as one step"
        )
    if config.held_out and not held_out and len(episodes) > 1:
        notes.append(
            f"no episode of {whole.name} is held out: earlier training used all of them, so none counts as unseen"
        )
    counts = [len(frozenset(known.digests)) for _, known in whole.by_source if not known.bundled]
    wanted = sum(count_held_out(count, config.held_out) for count in counts)
    if 0 < len(held_out) < wanted and episodes & before.learned:
        notes.append(
            f"{len(held_out)} episodes of {whole.name} are held out, not {wanted}: earlier training used the others, "
            "so they do not count as unseen"
        )
    return tuple(notes)
