"""The steps of an import: survey, range of the actions, shards in several processes, report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from rich.console import Console

from aime.data.action_scale import ActionScale
from aime.data.episodes import Episode
from aime.data.pool import Stopped, WorkLabels, count, progress_bar, run_jobs
from aime.data.shards import Attribute, write_shard
from aime.data.state_names import note_action_names, note_state_names
from aime.errors import AimeError
from aime.io.importers.assemble import Form, episodes_of
from aime.io.importers.fitting import Fit
from aime.io.importers.interface import BadEpisode, Choice, Importer, Item, Survey
from aime.io.importers.plan import REPORT, Job, Ledger, cut_into_jobs, files_digest
from aime.io.importers.report import Report
from aime.primitives.files import write_atomically
from aime.primitives.signals import handled

SHARD_BYTES = 64 * 2**20
"""Largest size of a shard's frames, unless one episode is larger."""


@dataclass(frozen=True)
class ImportRequest:
    """The settings of an import.

    Attributes:
        kind: of the source, as on the command line.
        source: its path, for the report.
        image_size: height and width of frames: a multiple of 16 from 16 to 256.
        fit: handling of frames that are not square.
        action_range: values of -1 and 1 for all actions; default: declared by the source, or computed from its data.
        skip_bad: skip episodes that cannot be imported.
        workers: number of processes.
        choice: further options.
    """

    kind: str
    source: str
    image_size: int = 64
    fit: Fit = "stretch"
    action_range: tuple[float, float] | None = None
    skip_bad: bool = False
    workers: int = 1
    choice: Choice = field(default_factory=Choice)

    def settings(self) -> dict[str, Any]:
        """The settings that determine the shards; without `skip_bad`, so that a failed import can resume with it."""
        settings = {name: getattr(self, name) for name in ("kind", "image_size", "fit", "action_range")}
        plain: dict[str, Any] = json.loads(json.dumps({**settings, **asdict(self.choice)}))
        return plain


@dataclass(frozen=True)
class _Task:
    """The inputs of a worker process for a job."""

    importer: Importer
    form: Form
    attributes: Mapping[str, Attribute]
    out: Path
    job: Job
    skip_bad: bool


def import_episodes(importer: Importer, out: Path, request: ImportRequest, console: Console) -> Report:
    """Import a data set, or resume an interrupted import.

    Args:
        importer: of the source.
        out: an empty or missing directory, or that of an interrupted import.
        request: the settings.
        console: for the progress bar.

    Raises:
        AimeError: at the first episode that cannot be imported, unless `request.skip_bad`; if no episode is left; if
            the directory has other files; if a shard cannot be written.
        KeyboardInterrupt: if the user interrupts; the same call resumes.
    """
    survey = importer.survey()
    if survey.bad and not request.skip_bad:
        raise survey.bad[0]
    if not survey.items:
        raise AimeError(f"{request.source}: no episode can be read ({_first(survey)}); check the source")
    ledger = Ledger(out)
    with ledger.locked():
        return _import(importer, survey, ledger, request, console)


def _import(importer: Importer, survey: Survey, ledger: Ledger, request: ImportRequest, console: Console) -> Report:
    settings = {**request.settings(), "files": files_digest(Path(request.source))}
    plan = ledger.begin(settings, survey.items)
    scale = _scale(importer, survey.items, request, ledger, plan, console)
    jobs = cut_into_jobs(survey.items)
    facts = importer.facts
    form = Form.sized(request.image_size, request.fit, scale, facts.state_width)
    rate: dict[str, Attribute] = {} if request.choice.fps is None else {"fps": request.choice.fps}
    attributes = {**rate, **facts.attributes, **_attributes(request, scale, facts.state_names, facts.action_names)}
    tasks = [_Task(importer, form, attributes, ledger.out, job, request.skip_bad) for job in ledger.open_jobs(jobs)]
    _do(tasks, request.workers, console)
    return _report(ledger, jobs, request, scale, survey, facts.notes)


def _first(survey: Survey) -> str:
    return str(survey.bad[0]) if survey.bad else "it is empty"


def _scale(
    importer: Importer,
    items: Sequence[Item],
    request: ImportRequest,
    ledger: Ledger,
    plan: dict[str, Any],
    console: Console,
) -> ActionScale | None:
    """The range of each action: requested, declared, or computed in a first pass and stored in the plan."""
    facts = importer.facts
    if not facts.action_width:
        return None
    low, high = np.array(facts.action_range or np.full((2, facts.action_width), np.nan), np.float64)
    discrete = np.array(facts.discrete or (False,) * facts.action_width)
    if request.action_range is not None:
        low[~discrete], high[~discrete] = request.action_range
    unknown = ~(np.isfinite(low) & np.isfinite(high))
    if unknown.any():
        if "action_low" not in plan:
            low_found, high_found = _found_range(importer, items, unknown, request.skip_bad, console)
            ledger.remember(plan, action_low=low_found, action_high=high_found)
        low[unknown], high[unknown] = plan["action_low"], plan["action_high"]
    return ActionScale(tuple(low.tolist()), tuple(high.tolist()))


def _found_range(
    importer: Importer, items: Sequence[Item], unknown: Bool[np.ndarray, " A"], skip_bad: bool, console: Console
) -> tuple[list[float], list[float]]:
    """Minimum and maximum of each action of unknown range; -1 and 1 if all are within these bounds."""
    count = int(unknown.sum())
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    with progress_bar(console, "episodes") as bar:
        task = bar.add_task("range of actions", total=len(items))
        for item in items:
            try:
                action = importer.actions(item)
            except BadEpisode as error:
                if not skip_bad:
                    raise located(error, item) from error
                continue
            finally:
                bar.advance(task)
            if action.shape[1:] == unknown.shape:
                action = action[np.isfinite(action).all(axis=1)][:, unknown].astype(np.float64)
                low, high = (
                    np.minimum(low, action.min(0, initial=np.inf)),
                    np.maximum(high, action.max(0, initial=-np.inf)),
                )
    if (low > high).any():
        raise AimeError(f"{items[0].name} and all others: no action is a number; import with --no-actions")
    if (low >= -1).all() and (high <= 1).all():
        return [-1.0] * count, [1.0] * count
    return low.tolist(), high.tolist()


def _attributes(
    request: ImportRequest, scale: ActionScale | None, state_names: Mapping[str, int], action_names: Mapping[str, int]
) -> dict[str, Attribute]:
    return {
        "imported_from": request.kind,
        **(scale.attributes() if scale else {}),
        **note_state_names(state_names),
        **note_action_names(action_names),
    }


def _do(tasks: Sequence[_Task], workers: int, console: Console) -> None:
    total = sum(_kilobytes(item) for task in tasks for item in task.job.items)
    if workers == 1 or len(tasks) == 1:
        with handled(), progress_bar(console, "kB") as bar:
            shown = bar.add_task("importing", total=total)
            for task in tasks:
                run_job(task)
                bar.advance(shown, sum(map(_kilobytes, task.job.items)))
    elif tasks:
        death = f"an import process crashed, possibly because of too little memory; use fewer than --workers {workers}"
        run_jobs(tasks, run_job, workers, total, WorkLabels("importing", "kB", death), console)


def _kilobytes(item: Item) -> int:
    return item.weight // 1024


def located(error: BadEpisode, item: Item) -> BadEpisode:
    """The error with the episode's name before it."""
    text = str(error)
    return error if text.startswith(item.name) else BadEpisode(f"{item.name}: {text}")


class _Shards:
    """Collects the episodes of one job and writes its shards."""

    def __init__(self, task: _Task) -> None:
        self._task, self._pending, self._parts = task, list[Episode](), 0
        self.episodes = 0

    def add(self, episode: Episode) -> None:
        """Add an episode; a full shard is written."""
        if self._pending and sum(held.pixels.nbytes for held in self._pending) + episode.pixels.nbytes > SHARD_BYTES:
            self.flush()
        self._pending.append(episode)

    def mark(self) -> tuple[int, int, int]:
        """The current position, for `roll_back`."""
        return self.episodes, self._parts, len(self._pending)

    def roll_back(self, mark: tuple[int, int, int]) -> None:
        """Remove the episodes since a mark: parts of one source episode, whose full shards have no other episodes."""
        episodes, parts, pending = mark
        if self._parts == parts:
            del self._pending[pending:]
            return
        # the first part has flushed the pending episodes; later shards have only parts of the bad episode
        first = parts + (1 if pending else 0)
        for part in range(first, self._parts):
            self._task.job.shard(self._task.out, part).unlink()
        self._pending, self._parts, self.episodes = [], first, episodes + pending

    def flush(self) -> None:
        """Write the pending episodes."""
        if self._pending:
            write_shard(self._task.job.shard(self._task.out, self._parts), self._pending, self._task.attributes)
            self.episodes, self._parts, self._pending = self.episodes + len(self._pending), self._parts + 1, []


def run_job(task: _Task) -> None:
    """Write the shards of a job, then its note.

    Raises:
        AimeError: at an episode that cannot be imported, unless `skip_bad` is set.
    """
    shards, tally, dropped = _Shards(task), Counter[str](), list[str]()
    with suppress(Stopped):
        for item in task.job.items:
            mark, counts = shards.mark(), Counter[str]()
            try:
                for episode in episodes_of(task.importer.read(item), task.form, counts):
                    shards.add(episode)
                tally.update(counts)
            except BadEpisode as error:
                if not task.skip_bad:
                    raise located(error, item) from error
                shards.roll_back(mark)
                dropped.append(str(located(error, item)))
            count(_kilobytes(item))
        shards.flush()
        note = {"episodes": shards.episodes, "tally": dict(tally), "dropped": dropped}
        write_atomically(task.job.note(task.out), json.dumps(note).encode())


def _readable(content: Mapping[str, Any]) -> bytes:
    # file names need not be valid text: escape invalid bytes
    return json.dumps(content, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _report(
    ledger: Ledger,
    jobs: Sequence[Job],
    request: ImportRequest,
    scale: ActionScale | None,
    survey: Survey,
    notes: Sequence[str],
) -> Report:
    dropped = [str(bad) for bad in survey.bad]
    report = Report(request.kind, request.source, request.image_size, notes=list(notes), dropped=dropped)
    if scale is not None:
        report.action_low, report.action_high = list(scale.low), list(scale.high)
    report.add(ledger.notes(jobs))
    if report.episodes == 0:
        raise AimeError(f"{request.source}: no episode could be taken ({report.dropped[0]}); mend the source")
    write_atomically(ledger.out / REPORT, _readable(report.content()))
    return report
