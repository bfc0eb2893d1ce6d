"""An import from start to end: survey, range of the actions, shards in several processes, report."""

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
"""Most bytes of a shard's frames, unless one episode has more."""


@dataclass(frozen=True)
class Wish:
    """How the data set shall be.

    Attributes:
        kind: of the source, as the command line names it.
        source: where it lies, for the report.
        image_size: height and width of frames: a multiple of 16 from 16 to 256.
        fit: what happens to frames that are not square.
        action_range: what -1 and 1 mean, for all actions alike; by default the source says, or its numbers do.
        skip_bad: go on without episodes that cannot be taken.
        workers: processes.
        choice: what else the episodes depend on.
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
        """What the shards depend on. Not `skip_bad`: who met something bad may go on with it."""
        settings = {name: getattr(self, name) for name in ("kind", "image_size", "fit", "action_range")}
        plain: dict[str, Any] = json.loads(json.dumps({**settings, **asdict(self.choice)}))
        return plain


@dataclass(frozen=True)
class _Task:
    """All that a worker process needs for a job."""

    importer: Importer
    form: Form
    attributes: Mapping[str, Attribute]
    out: Path
    job: Job
    skip_bad: bool


def import_episodes(importer: Importer, out: Path, wish: Wish, console: Console) -> Report:
    """Import a data set, or what is left of it.

    Args:
        importer: of the source.
        out: the directory to fill: empty, absent, or one in which the same import was stopped.
        wish: how the data set shall be.
        console: where the bar goes.

    Raises:
        AimeError: at the first episode that cannot be taken, unless `wish.skip_bad`; if nothing is left; if the
            directory holds something else; if a shard cannot be written.
        KeyboardInterrupt: if the user interrupts; the same call goes on.
    """
    survey = importer.survey()
    if survey.bad and not wish.skip_bad:
        raise survey.bad[0]
    if not survey.items:
        raise AimeError(f"{wish.source}: no episode can be read ({_first(survey)}); check the source")
    ledger = Ledger(out)
    with ledger.locked():
        return _import(importer, survey, ledger, wish, console)


def _import(importer: Importer, survey: Survey, ledger: Ledger, wish: Wish, console: Console) -> Report:
    settings = {**wish.settings(), "files": files_digest(Path(wish.source))}
    plan = ledger.begin(settings, survey.items)
    scale = _scale(importer, survey.items, wish, ledger, plan, console)
    jobs = cut_into_jobs(survey.items)
    facts = importer.facts
    form = Form.sized(wish.image_size, wish.fit, scale, facts.state_width)
    rate: dict[str, Attribute] = {} if wish.choice.fps is None else {"fps": wish.choice.fps}
    attributes = {**rate, **facts.attributes, **_attributes(wish, scale, facts.state_names, facts.action_names)}
    tasks = [_Task(importer, form, attributes, ledger.out, job, wish.skip_bad) for job in ledger.open_jobs(jobs)]
    _do(tasks, wish.workers, console)
    return _report(ledger, jobs, wish, scale, survey, facts.notes)


def _first(survey: Survey) -> str:
    return str(survey.bad[0]) if survey.bad else "it is empty"


def _scale(
    importer: Importer, items: Sequence[Item], wish: Wish, ledger: Ledger, plan: dict[str, Any], console: Console
) -> ActionScale | None:
    """The range of each action: asked for, else declared, else found in a first pass, which is kept in the plan."""
    facts = importer.facts
    if not facts.action_width:
        return None
    low, high = np.array(facts.action_range or np.full((2, facts.action_width), np.nan), np.float64)
    discrete = np.array(facts.discrete or (False,) * facts.action_width)
    if wish.action_range is not None:
        low[~discrete], high[~discrete] = wish.action_range
    unknown = ~(np.isfinite(low) & np.isfinite(high))
    if unknown.any():
        if "action_low" not in plan:
            low_found, high_found = _found_range(importer, items, unknown, wish.skip_bad, console)
            ledger.remember(plan, action_low=low_found, action_high=high_found)
        low[unknown], high[unknown] = plan["action_low"], plan["action_high"]
    return ActionScale(tuple(low.tolist()), tuple(high.tolist()))


def _found_range(
    importer: Importer, items: Sequence[Item], unknown: Bool[np.ndarray, " A"], skip_bad: bool, console: Console
) -> tuple[list[float], list[float]]:
    """The least and greatest of each unknown action; -1 and 1 where all are within, because they are scaled already."""
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
    wish: Wish, scale: ActionScale | None, state_names: Mapping[str, int], action_names: Mapping[str, int]
) -> dict[str, Attribute]:
    return {
        "imported_from": wish.kind,
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
        death = f"a process died while it imported; memory may be short: use fewer than --workers {workers}"
        run_jobs(tasks, run_job, workers, total, WorkLabels("importing", "kB", death), console)


def _kilobytes(item: Item) -> int:
    return item.weight // 1024


def located(error: BadEpisode, item: Item) -> BadEpisode:
    """The same complaint, with the place before it."""
    text = str(error)
    return error if text.startswith(item.name) else BadEpisode(f"{item.name}: {text}")


class _Shards:
    """Episodes on their way into the shards of one job."""

    def __init__(self, task: _Task) -> None:
        self._task, self._pending, self._parts = task, list[Episode](), 0
        self.episodes = 0

    def add(self, episode: Episode) -> None:
        """Take one more; full shards are written."""
        if self._pending and sum(held.pixels.nbytes for held in self._pending) + episode.pixels.nbytes > SHARD_BYTES:
            self.flush()
        self._pending.append(episode)

    def mark(self) -> tuple[int, int, int]:
        """Where to go back to if the next episode turns out bad."""
        return self.episodes, self._parts, len(self._pending)

    def roll_back(self, mark: tuple[int, int, int]) -> None:
        """Forget what came since a mark: only stretches of one long episode, which share a shard with no other."""
        episodes, parts, pending = mark
        if self._parts == parts:
            del self._pending[pending:]
            return
        # the first stretch has pushed out those who waited before it; shards after theirs hold the bad episode alone
        first = parts + (1 if pending else 0)
        for part in range(first, self._parts):
            self._task.job.shard(self._task.out, part).unlink()
        self._pending, self._parts, self.episodes = [], first, episodes + pending

    def flush(self) -> None:
        """Write what waits."""
        if self._pending:
            write_shard(self._task.job.shard(self._task.out, self._parts), self._pending, self._task.attributes)
            self.episodes, self._parts, self._pending = self.episodes + len(self._pending), self._parts + 1, []


def run_job(task: _Task) -> None:
    """Write the shards of a job and, after them, the note that it is done.

    Raises:
        AimeError: at an episode that cannot be taken, unless it may be skipped.
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
    # names of files need not be text: what is not becomes an escape, as JSON has it
    return json.dumps(content, indent=1, ensure_ascii=False).encode(errors="backslashreplace")


def _report(
    ledger: Ledger, jobs: Sequence[Job], wish: Wish, scale: ActionScale | None, survey: Survey, notes: Sequence[str]
) -> Report:
    dropped = [str(bad) for bad in survey.bad]
    report = Report(wish.kind, wish.source, wish.image_size, notes=list(notes), dropped=dropped)
    if scale is not None:
        report.action_low, report.action_high = list(scale.low), list(scale.high)
    report.add(ledger.notes(jobs))
    if report.episodes == 0:
        raise AimeError(f"{wish.source}: no episode could be taken ({report.dropped[0]}); mend the source")
    write_atomically(ledger.out / REPORT, _readable(report.content()))
    return report
