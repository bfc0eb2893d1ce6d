"""Episodes that a run was never trained on, identified by their content, not by their path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aime.data import Dataset
from aime.data.bundled import bundled_parts
from aime.data.identity import HALVES, half_of
from aime.data.sources import is_bundled
from aime.errors import AimeError
from aime.inference.loading import check_fit, check_lengths
from aime.inference.own_data import learned_by_position, open_own
from aime.world_model.saved import RunInfo

Part = Literal["test", "validation", "all"]

PARTS: tuple[Part, ...] = ("test", "validation", "all")

Provenance = Literal["held out", "not in manifest", "unknown"]


@dataclass(frozen=True)
class Unseen:
    """Episodes to score a run on.

    Attributes:
        dataset: the episodes, each once.
        part: the half of the unseen episodes that they are; "all" is both.
        dropped: how many episodes of the data were left out because the run or an ancestor learned from them.
        provenance: "held out" if all of them are in the run's manifest as held out; "not in manifest" if some are not
            in it, which are unseen unless they are changed copies of what was learned from; "unknown" if the manifest
            of the run or of an ancestor is missing.
        foreign: how many of them are not in the manifest.
        gap: why the provenance is unknown; else empty.
        others: episodes of the same data that scores may be fitted to: those that the run was trained on, and the
            validation half where that is not scored. Nothing is ever fitted to the test half.
        units: what is assumed about the units of actions, where the run does not say them and the data does.
    """

    dataset: Dataset
    part: Part
    dropped: int
    provenance: Provenance
    foreign: int = 0
    gap: str = ""
    others: Dataset | None = None
    units: str = ""

    @property
    def content(self) -> str:
        """SHA-256 over the digests of the episodes, in any order: another one, other episodes."""
        return hashlib.sha256("".join(sorted(self.dataset.digests)).encode()).hexdigest()

    @property
    def title(self) -> str:
        """For the title of a table: the part, how it is known to be unseen, and unknown units."""
        return f"{self._origin}; {self.units}" if self.units else self._origin

    @property
    def _origin(self) -> str:
        part = "test and validation parts" if self.part == "all" else f"{self.part} part"
        dropped = f"; {self.dropped} episodes that it was trained on are left out" if self.dropped else ""
        if self.provenance == "unknown":
            return f"{part}; unknown whether the run was trained on it: {self.gap}{dropped}"
        if self.provenance == "held out":
            return f"{part}, held out by the run"
        count = "" if self.foreign == self.dataset.episodes else f"{self.foreign} episodes "
        return (
            f"{part}; {count}not in the run's manifest: unseen unless changed copies of what it was trained on, such "
            f"as re-encoded, resized or cut ones, or ones with other actions or states{dropped}"
        )


def open_unseen(info: RunInfo, data: str | Path | None, context: int, horizon: int, part: Part = "test") -> Unseen:
    """The episodes of `data` that the run never learned from, of one part, and that are long enough.

    Every episode is known by its content. What the run or one of its ancestors was trained, fine-tuned or calibrated on
    is left out, wherever it lies now. Of a run without a manifest this is not known: of its own data, the last
    episodes in the order of names are taken, as such runs held them out.

    Args:
        info: the run.
        data: what `open_dataset` takes; by default, the run's own data.
        context: frames that the model sees, 1 or more.
        horizon: frames that it predicts, 1 or more.
        part: "test", to report on; "validation", for every choice; "all", both.

    Raises:
        AimeError: if there is no such data, if its frames or actions do not fit the model, if the run learned from all
            of it, if none of it is of that part, or if no episode has context + horizon frames.
    """
    check_lengths(context, horizon)
    if part not in PARTS:
        raise AimeError(f"part is {part!r}; expected one of {', '.join(PARTS)}: take --part test")
    whole = open_own(info, data)
    check_fit(whole, info)
    units = _assumed_units(info, whole)
    whole = whole.in_scale(info.action_scale)
    digests, manifest = whole.digests, info.manifest
    known = learned_by_position(info, whole) if manifest is None else manifest.learned
    unseen = _each_once(_not_bundled_training(whole, digests), digests, known)
    dropped = sum(digest in known for digest in digests)
    if not unseen:
        raise AimeError(
            f"{whole.name}: {info.path} or a run that it started from was trained on all of its {whole.episodes} "
            "episodes; expected unseen ones: take others by --data"
        )
    chosen = [number for number in unseen if part == "all" or half_of(digests[number]) == part]
    if not chosen:
        other = next(each for each in HALVES if each != part)
        raise AimeError(
            f"{whole.name}: none of its {len(unseen)} unseen episodes is of the {part} part, expected 1 or more; take "
            f"--part {other} ({len(unseen)} episodes) or --part all"
        )
    fitting = _long_enough(whole.select(chosen), context, horizon)
    others = _others(whole, [digests[number] for number in unseen], part)
    if manifest is None:
        return Unseen(fitting, part, dropped, "unknown", gap="the run has no manifest", others=others, units=units)
    foreign = sum(digest not in manifest.held_out for digest in fitting.digests)
    provenance: Provenance = "unknown" if manifest.gap else "not in manifest" if foreign else "held out"
    return Unseen(fitting, part, dropped, provenance, foreign, manifest.gap, others, units)


def _assumed_units(info: RunInfo, dataset: Dataset) -> str:
    scale = dataset.action_scale
    if info.action_scale is not None or scale is None or scale.is_identity:
        return ""
    return f"the run does not say the units of its actions: -1 to 1 is read as {scale}"


def _others(whole: Dataset, unseen: Sequence[str], part: Part) -> Dataset | None:
    """All episodes but the unseen ones that are scored or are of the test half."""
    left_out = {digest for digest in unseen if part != "test" or half_of(digest) == "test"}
    chosen = [number for number, digest in enumerate(whole.digests) if digest not in left_out]
    return whole.select(chosen) if chosen else None


def _each_once(numbers: Sequence[int], digests: Sequence[str], known: frozenset[str]) -> list[int]:
    """The episodes that are not known; of two of the same content the first."""
    first = {digests[number]: number for number in reversed(numbers)}
    return [number for number in numbers if digests[number] not in known and first[digests[number]] == number]


def _not_bundled_training(dataset: Dataset, digests: Sequence[str]) -> list[int]:
    """All episodes but those that bundled data has for training: figures on it are of its other parts alone."""
    bundled = any(is_bundled(source.name) for source, _ in dataset.by_source)
    parts = bundled_parts() if bundled else {}
    return [number for number, digest in enumerate(digests) if parts.get(digest) != "train"]


def _long_enough(dataset: Dataset, context: int, horizon: int) -> Dataset:
    fitting = np.flatnonzero(dataset.lengths >= context + horizon)
    if fitting.size:
        return dataset.select(fitting)
    longest = int(dataset.lengths.max())
    remedy = f"take --horizon {longest - context} or less" if longest > context else "record longer episodes"
    raise AimeError(
        f"{dataset.name}: the longest unseen episode has {longest} frames, expected {context + horizon} (context "
        f"{context} + horizon {horizon}); {remedy}"
    )
