"""Tables of the results, for the terminal and in Markdown."""

from __future__ import annotations

from typing import NamedTuple

from aime.benchmarking.dmc_vb.levels import LEVELS
from aime.benchmarking.dmc_vb.results import Benchmark, LevelScores
from aime.primitives.interval_text import NO_INTERVAL
from aime.primitives.intervals import Interval


class Table(NamedTuple):
    """Headings, and a row per level."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def main_table(benchmark: Benchmark) -> Table:
    """The results of all levels."""
    played = [f"return under {distractor}" for distractor in LEVELS]
    heading = ("trained on", "steps", "state, R²", *played, "return of the data")
    return Table(heading, tuple(_row(each) for each in benchmark.levels))


def field_table(benchmark: Benchmark) -> Table | None:
    """R² of each field of the state; None if the data does not name them."""
    names = list(benchmark.levels[0].fields)
    if not names:
        return None
    rows = tuple(
        (each.level, *(_cell(each.fields.get(name), ".2f", "–") for name in names)) for each in benchmark.levels
    )
    return Table(("trained on", *names), rows)


def title(benchmark: Benchmark) -> str:
    """Data, preset and seeds, in a line."""
    seeds = "1 seed" if benchmark.seeds == 1 else f"{benchmark.seeds} seeds"
    return f"DMC-VB protocol on {benchmark.source}: {benchmark.preset}, {seeds}"


def playing(benchmark: Benchmark) -> str:
    """Where the clones played, or why they did not."""
    if benchmark.environment is None:
        return f"The clones did not play: {benchmark.absence}."
    return (
        f"Returns are means over {benchmark.episodes} episodes per seed, of {benchmark.episode_steps} frames, in "
        f"{benchmark.environment}."
    )


def to_markdown(benchmark: Benchmark) -> str:
    """All tables, with explanations."""
    fields = field_table(benchmark)
    held_out = ", ".join(f"{each.held_out} of {each.level}" for each in benchmark.levels)
    lines = [f"# {title(benchmark)}", "", *_markdown(main_table(benchmark))]
    lines += ["", "R² by field of the state:", "", *_markdown(fields)] if fields else []
    lines += [
        "",
        f"In brackets 95 % bootstrap intervals over episodes and seeds. {playing(benchmark)} R² of a ridge regression "
        f"from (h, z) to the state, on the test part of the data ({held_out} episodes): the mean over the numbers that "
        "vary, with angles as cosine and sine.",
        "",
        "![R² and returns by level](benchmark.png)",
    ]
    return "\n".join(lines) + "\n"


def _row(scores: LevelScores) -> tuple[str, ...]:
    returns = [_cell(scores.returns.get(distractor), ".1f", "not played") for distractor in LEVELS]
    return (
        scores.level,
        f"{scores.steps:.0f}",
        _cell(scores.state, ".2f", "no state"),
        *returns,
        _cell(scores.data_return, ".1f", "no rewards"),
    )


def _cell(interval: Interval | None, form: str, absent: str) -> str:
    if interval is None:
        return absent
    mean = format(interval.mean, form).replace("-", "−")
    if interval.bounds is None:
        return f"{mean} ({NO_INTERVAL})"
    low, high = (format(value, form).replace("-", "−") for value in interval.bounds)
    return f"{mean} ({low} to {high})"


def _markdown(table: Table) -> list[str]:
    rule = ("---", *("---:" for _ in table.heading[1:]))
    return [f"| {' | '.join(cells)} |" for cells in (table.heading, rule, *table.rows)]
