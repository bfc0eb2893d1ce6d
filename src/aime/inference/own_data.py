"""The current path of a run's data, identified by its content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from aime.data import Dataset, open_dataset
from aime.data.bundled import bundled_parts
from aime.data.manifest import SourceRecord
from aime.data.sources import is_bundled, join_sources, places_of, with_shares
from aime.data.splitting import Rule
from aime.errors import AimeError
from aime.world_model.saved import RunInfo


def own_data(info: RunInfo) -> str:
    """The data that a run was last trained on, as `open_dataset` takes it.

    Each source is looked for at its absolute path and at its path relative to the run, and must share an episode with
    the run's manifest. Of a run without a manifest it is what the config names.

    Raises:
        AimeError: if a source is at neither place, or other data is, or if config and manifest name different data.
    """
    if info.manifest is None:
        return info.data
    records = info.manifest.current
    _check_same_sources(info, records)
    return join_sources(with_shares([locate(each, info.path) for each in records], [each.weight for each in records]))


def open_own(info: RunInfo, data: str | Path | None) -> Dataset:
    """Open the run's own data, or `data` where it is given.

    Raises:
        AimeError: if there is no such data, or the run's own is not where it was.
    """
    return open_dataset(own_data(info) if data is None else data)


def held_out_by(info: RunInfo, dataset: Dataset) -> frozenset[str]:
    """The digests of a data set's episodes that no agent of a run may learn from.

    They are what the run or an ancestor holds out, and the validation and test parts of bundled data. Of a run without
    a manifest, they are the last episodes of its own sources, as such runs held them out.

    Raises:
        AimeError: if a file is damaged.
    """
    bundled = [each for _, each in dataset.by_source if each.bundled]
    parts = Rule(0.0).choose(bundled)
    if info.manifest is not None:
        return info.manifest.held_out | parts
    places = places_of(info.data)
    own = frozenset(each for source, known in dataset.by_source if source.place in places for each in known.digests)
    return (own - learned_by_position(info, dataset)) | parts


def learned_by_position(info: RunInfo, dataset: Dataset) -> frozenset[str]:
    """What a run without a manifest was trained on if nothing has changed: all but the last episodes of each source."""
    own, share = places_of(info.data), float(info.train.get("held_out", 0.05))
    learned: set[str] = set()
    for source, known in dataset.by_source:
        if source.place in own and not known.bundled:
            count = len(known.digests)
            learned.update(known.digests[: count - min(math.ceil(share * count), count - 1)])
        elif source.place in own:
            learned.update(each for each in known.digests if bundled_parts().get(each) == "train")
    return frozenset(learned)


def _check_same_sources(info: RunInfo, records: Sequence[SourceRecord]) -> None:
    """Refuse a config that was edited: the run was not trained on what it names now."""
    if any("," in record.place for record in records):  # the config cannot tell such names apart
        return
    shares = [each.weight for each in records]
    as_named = with_shares([each.name for each in records], shares)
    trained = with_shares([each.place for each in records], shares)
    if set(info.data.split(", ")) not in (set(as_named), set(trained)):
        raise AimeError(
            f"{info.path}/config.yaml: train.data is {info.data}, but by manifest.json the run was trained on "
            f"{', '.join(trained)}; set it back, or say by --data which to use"
        )


def locate(record: SourceRecord, run: Path) -> str:
    """The path of a source of a run, or bundled:NAME.

    Raises:
        AimeError: if it is not there any more, or other data is.
    """
    if is_bundled(record.place):
        return record.place
    near = run.resolve() / (record.near or ".")
    places = list(dict.fromkeys((record.place, str(near.resolve()))))
    there = [place for place in places if Path(place).exists()]
    for place in there:
        dataset = open_dataset(place)
        # one is enough, and to read all of a large data set takes long
        if any(record.episodes.intersection(dataset.select([each]).digests) for each in range(dataset.episodes)):
            return place
    if not there:
        raise AimeError(
            f"{record.name}: the data of {run} is not there any more, expected {' or '.join(places)}; link it there, "
            "or say where it is by --data"
        )
    raise AimeError(
        f"{there[0]}: shares no episode with the data that {run} was trained on, expected the same data; put it "
        "there, or say where it is by --data"
    )
