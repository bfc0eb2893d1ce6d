"""Put the figures of the bundled model's evaluation into the tables of docs/results.md.

python scripts/results_tables.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from aime.inference.evaluation import Evaluation
from aime.inference.report.material import EVALUATION
from aime.inference.score_rows import BODY, BY_HORIZON, MASKS, OVERALL, SHARPNESS, Row, rows_of
from aime.primitives.interval_text import bounds_text, number_text
from aime.primitives.intervals import Bounds
from aime.world_model.bundled import locate

PAGE = Path(__file__).parents[1] / "docs" / "results.md"

TABLES: dict[str, tuple[Sequence[Row], Sequence[int]]] = {
    "horizons": (BY_HORIZON, (1, 5, 15, 45)),
    "body": (BODY, (1, 5, 15, 45)),
    "frames": (OVERALL + SHARPNESS, (1,)),
    "masks": (MASKS, (1,)),
}
"""The rows of each table, and the numbers of frames ahead."""


def fill(page: str, evaluation: Evaluation) -> str:
    """The page with every table between `<!-- NAME -->` and `<!-- end -->` made again."""
    for name, (rows, ahead) in TABLES.items():
        header = ["frames ahead", *map(str, ahead)] if len(ahead) > 1 else ["over all frames", "score"]
        lines = [header]
        for title, form, pairs in rows_of(evaluation, rows, ahead):
            lines.append([title.replace("-log", "−log"), *(_cell(*pair, form.lstrip("+")) for pair in pairs)])
        lines.insert(1, ["---"] * len(header))
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        before, after = f"<!-- {name} -->\n", "<!-- end -->"
        page, count = re.subn(f"{before}.*?{after}", before + table + after, page, flags=re.DOTALL)
        assert count == 1, f"the page has {count} places for {name}"
    return page


def _cell(value: float, bounds: Bounds | None, form: str) -> str:
    interval = f" [{bounds_text(bounds, form)}]" if bounds else ""
    return f"{number_text(value, form)}{interval}".replace("-", "−")


def read_evaluation() -> Evaluation:
    """The evaluation that the package comes with."""
    path = locate("bundled:cartpole") / EVALUATION
    return Evaluation.from_json(path.read_text(encoding="utf-8"), str(path))


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), read_evaluation()), encoding="utf-8")
