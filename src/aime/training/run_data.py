"""The data of a run: which episodes it trains on, given what it and its ancestors were trained on before."""

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

SAME_RATE = 1.05
"""How many times the frames a second of one source another's may be, without a word."""


class RunData(NamedTuple):
    """What a run reads, and what its manifest records."""

    train: Dataset
    validation: Dataset | None
    """For pictures; None where nothing is held out that is of the validation half."""
    manifest: Manifest
    """With the roles of this training; not written yet."""
    notes: tuple[str, ...]
    """Lines for people: what is not as it was, or not as the config asks."""

    def in_units(self, train: Dataset, note: str) -> RunData:
        """With the same training episodes in other units, and a line that says so, if any."""
        validation = None if self.validation is None else self.validation.in_scale(train.action_scale)
        return self._replace(train=train, validation=validation, notes=(*self.notes, *([note] if note else ())))


def open_run_data(config: TrainConfig) -> RunData:
    """Open the run's data and decide, by content, what is held out.

    What the run or an ancestor has learned from is never held out. What was held out before stays so, unless
    `config.held_out` is lowered; new episodes are split by the usual rule.

    Raises:
        AimeError: if the data cannot be read, does not fit the run that is resumed, or leaves nothing to train on.
    """
    whole = open_dataset(config.data)
    before = _before(config)
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
    """Note in the run's manifest which episodes belief and prior are fine-tuned on, and which calibrate the prior.

    Raises:
        AimeError: if the manifest is damaged or cannot be written.
    """
    manifest = find_manifest(run)
    assert manifest is not None, "written before the first step"
    manifest.finetuned_on(learned.digests, () if left_out is None else left_out.digests).write(run / MANIFEST)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same config from whatever directory it is read."""
    start = config.init_from
    if start is not None and not is_bundled(start):
        start = Path(os.path.abspath(start))
    return replace(
        config,
        data=_absolute(config.data),
        out=Path(os.path.abspath(config.out)),
        init_from=start,
        resume=config.resume,
    )


def _absolute(data: str) -> str:
    sources = parse_sources(data)
    places = [each.place for each in sources]
    if len(places) > 1 and any("," in place for place in places):
        return data  # such a name would be read as two; the manifest has the places
    return ", ".join(with_shares(places, [each.weight for each in sources]))


def _before(config: TrainConfig) -> Manifest:
    """What is known of all training before this one."""
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
        notes.append(f"what was trained on before is not all known: {before.gap}; evaluations will say so")
    gone = frozenset().union(*(each.learned for each in before.current)) - episodes if config.resume else frozenset()
    if gone:
        notes.append(
            f"{len(gone)} episodes that the run has learned from are not in {whole.name} any more; it goes on without "
            "them, and they stay known as learned"
        )
    slowest, *_, fastest = whole.rates if len(whole.rates) > 1 else (1.0, 1.0)
    if fastest > SAME_RATE * slowest:
        notes.append(
            f"{whole.name} has films of {slowest:g} to {fastest:g} frames a second: a step is as long as one of them, "
            "and the model is not told"
        )
    if config.held_out and not held_out and len(episodes) > 1:
        notes.append(
            f"nothing of {whole.name} is held out: all of it was learned from before, and is never taken for unseen"
        )
    counts = [len(frozenset(known.digests)) for _, known in whole.by_source if not known.bundled]
    wanted = sum(count_held_out(count, config.held_out) for count in counts)
    if 0 < len(held_out) < wanted and episodes & before.learned:
        notes.append(
            f"{len(held_out)} episodes of {whole.name} are held out, not {wanted}: others were learned from before, "
            "and are never taken for unseen"
        )
    return tuple(notes)
