"""The record of a run's training data by content: RUN/manifest.json, with a copy in each checkpoint.

Roles of episodes accumulate: a training episode stays recorded when the run is resumed with other data. The manifest
includes those of the runs that training started from, which may be deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from aime.data.sources import Source, is_bundled
from aime.errors import AimeError, one_line
from aime.primitives.config_io import from_plain, renamed, to_plain
from aime.primitives.files import read_small, write_atomically

MANIFEST = "manifest.json"

FORMAT = 1

MOST_BYTES = 2**28
"""Enough for four million digests of 67 bytes."""

_DIGEST = re.compile("[0-9a-f]{64}")

_ROLES = ("learned", "finetuned", "left_out", "held_out")


@dataclass(frozen=True)
class SourceRecord:
    """The roles of one source's episodes, identified by digests (`aime.data.identity`).

    Attributes:
        name: as the user gave it.
        place: absolute path, or bundled:NAME.
        near: path relative to the run's directory; None for bundled data.
        weight: share of the clips, as `Source.weight`.
        current: whether the run still uses the source; False for data of earlier training.
        learned: training episodes.
        finetuned: training episodes also used for dynamics fine-tuning.
        left_out: training episodes left out of dynamics fine-tuning, for the calibration.
        held_out: episodes not used for training.
    """

    name: str
    place: str
    near: str | None = None
    weight: float | None = None
    current: bool = True
    learned: tuple[str, ...] = ()
    finetuned: tuple[str, ...] = field(default=(), metadata=renamed("settled"))
    left_out: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the digests.

        Raises:
            AimeError: if an entry does not have 64 hexadecimal digits.
        """
        for role in _ROLES:
            for digest in getattr(self, role):
                if not _DIGEST.fullmatch(digest):
                    raise AimeError(f"{role}: found {digest[:80]!r}, expected 64 hexadecimal digits")

    @classmethod
    def of(cls, source: Source, run: Path, digests: Iterable[str], held_out: frozenset[str]) -> SourceRecord:
        """The record of a source whose episodes are all trained on, except those held out."""
        episodes = frozenset(digests)
        place = source.place
        near = None if is_bundled(place) else os.path.relpath(place, run.resolve())
        learned, held = sorted(episodes - held_out), sorted(episodes & held_out)
        return cls(source.name, place, near, source.weight, learned=tuple(learned), held_out=tuple(held))

    @cached_property
    def episodes(self) -> frozenset[str]:
        """The digests of all roles."""
        return frozenset().union(*(getattr(self, role) for role in _ROLES))

    def joined(self, other: SourceRecord) -> SourceRecord:
        """The other record with the roles of both records."""
        both = {role: tuple(sorted({*getattr(self, role), *getattr(other, role)})) for role in _ROLES}
        return replace(other, **both)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Ancestor:
    """A run from whose weights another run started."""

    name: str
    """Absolute path, or bundled:NAME."""
    known: bool
    """Whether it had a complete manifest."""
    sources: tuple[SourceRecord, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The training data of a run or an agent.

    Attributes:
        sources: current and earlier sources.
        ancestors: the runs that it started from, directly or indirectly.
        forgotten: whether it was trained before manifests existed, so that the record is incomplete.
    """

    format: int = FORMAT
    sources: tuple[SourceRecord, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    forgotten: bool = False

    @cached_property
    def learned(self) -> frozenset[str]:
        """Digests of all episodes that the run or an ancestor was trained, fine-tuned or calibrated on."""
        return _union(self._records, "learned", "finetuned", "left_out")

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Digests of episodes that the run or an ancestor held out, and none was trained on."""
        return _union(self._records, "held_out") - self.learned

    @property
    def _records(self) -> list[SourceRecord]:
        return [*self.sources, *(record for each in self.ancestors for record in each.sources)]

    @property
    def current(self) -> tuple[SourceRecord, ...]:
        """The sources that the run still uses."""
        return tuple(each for each in self.sources if each.current)

    @property
    def gap(self) -> str:
        """The reason why the record is incomplete; empty if it is complete."""
        if self.forgotten:
            return "the run was trained before there were manifests"
        unknown = [each.name for each in self.ancestors if not each.known]
        return f"it starts from {unknown[0]}, which has no complete manifest" if unknown else ""

    def trained_on(self, records: Sequence[SourceRecord]) -> Manifest:
        """Add the sources and roles of a new training session."""
        found = {each.place: replace(each, current=False) for each in self.sources}
        for each in records:
            found[each.place] = found[each.place].joined(each) if each.place in found else each
        return replace(self, sources=tuple(found.values()))

    def finetuned_on(self, finetuned: Iterable[str], left_out: Iterable[str]) -> Manifest:
        """Add the roles of dynamics fine-tuning on episodes of the current sources."""
        new = {"finetuned": frozenset(finetuned), "left_out": frozenset(left_out)}
        return replace(self, sources=tuple(_with_roles(each, new) if each.current else each for each in self.sources))

    def after(self, name: str, start: Manifest | None) -> Manifest:
        """The manifest of a run that starts from a run of that name and manifest."""
        start = Manifest(forgotten=True) if start is None else start
        own, others = Ancestor(name, not start.forgotten, start.sources), start.ancestors
        return replace(self, ancestors=tuple(dict.fromkeys((*self.ancestors, own, *others))))

    def write(self, path: Path) -> None:
        """Write JSON, atomically.

        Raises:
            AimeError: if the file cannot be written.
        """
        write_atomically(path, (json.dumps(to_plain(self), indent=0) + "\n").encode())


def read_manifest(path: Path) -> Manifest:
    """Read a manifest of at most `MOST_BYTES`; runs no code.

    Raises:
        AimeError: if the file cannot be read, is too large, or is not a manifest of this format.
    """
    try:
        content = json.loads(read_small(path, MOST_BYTES))
    except AimeError:
        raise
    except (ValueError, RecursionError) as error:
        raise AimeError(
            f"{path}: not a manifest: {one_line(error)}; restore the file from the run's checkpoint"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise AimeError(f"{path}: format: found {found!r}, expected {FORMAT}; use the aime version that wrote it")
    return from_plain(Manifest, content, str(path))


def find_manifest(*directories: Path) -> Manifest | None:
    """The manifest of the first directory that has one, or None.

    Raises:
        AimeError: see `read_manifest`.
    """
    for directory in directories:
        if (directory / MANIFEST).exists():
            return read_manifest(directory / MANIFEST)
    return None


def _union(records: Iterable[SourceRecord], *roles: str) -> frozenset[str]:
    return frozenset().union(*(getattr(each, role) for each in records for role in roles))


def _with_roles(record: SourceRecord, new: dict[str, frozenset[str]]) -> SourceRecord:
    own = record.episodes
    added = {role: tuple(sorted({*getattr(record, role), *(digests & own)})) for role, digests in new.items()}
    return replace(record, **added)  # type: ignore[arg-type]
