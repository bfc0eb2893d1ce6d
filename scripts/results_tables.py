"""Put the figures of the bundled model's evaluation into the tables of docs/results.md.

python scripts/results_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aime.inference.evaluation import Evaluation
from aime.inference.report.material import EVALUATION
from aime.primitives.interval_text import bounds_text, number_text
from aime.world_model.bundled import locate

PAGE = Path(__file__).parents[1] / "docs" / "results.md"

AHEAD = (1, 5, 15, 45)

TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "horizons": {
        "skill, mean of 16 futures": ("horizons.*.skill", ".2f"),
        "skill, most likely future": ("horizons.*.skill_likeliest", ".2f"),
        "PSNR, dB, mean of 16": ("horizons.*.psnr", ".1f"),
        "PSNR, dB, best of 8": ("best_of.*.psnr", ".1f"),
        "PSNR, dB, persistence": ("baselines.persistence.*.psnr", ".1f"),
        "PSNR, dB, mean image": ("baselines.mean_image.*.psnr", ".1f"),
        "SSIM": ("horizons.*.ssim", ".3f"),
        "energy score": ("horizons.*.energy_score", ".3f"),
        "coverage of the 80 % interval": ("horizons.*.coverage", ".2f"),
        "the same where samples differ": ("horizons.*.coverage_uncertain", ".2f"),
    },
    "body": {
        "foreground F1, most likely future": ("foreground.horizons.*.likeliest.f1", ".2f"),
        "foreground F1, sampled futures": ("foreground.horizons.*.samples.f1", ".2f"),
        "foreground F1, persistence": ("foreground.horizons.*.persistence.f1", ".2f"),
        "foreground F1, reconstruction": ("foreground.horizons.*.reconstruction.f1", ".2f"),
        "state read, R², most likely future": ("read_states.horizons.*.likeliest.r2", ".2f"),
        "state read, R², sampled futures": ("read_states.horizons.*.samples.r2", ".2f"),
        "state read, R², persistence": ("read_states.horizons.*.persistence.r2", ".2f"),
        "state read, R², true frames": ("read_states.horizons.*.true_frames.r2", ".2f"),
    },
    "frames": {
        "reconstruction, PSNR in dB": ("reconstruction.psnr", ".1f"),
        "mean image on the same frames, PSNR in dB": ("reconstruction.psnr_mean_image", ".1f"),
        "−log p(z), nats a frame": ("prior_nll", ".1f"),
        "KL of z, nats a frame": ("kl_z", ".1f"),
        "KL of the mixture weights, nats a frame": ("kl_hierarchical", ".1f"),
        "effective components, of 15": ("effective_components", ".1f"),
        "codebook perplexity, of 256": ("codebook_perplexity", ".0f"),
        "IoU of a body and its best slot": ("masks.slot_iou", ".2f"),
        "IoU of a body and the whole frame": ("masks.whole_iou", ".2f"),
        "IoU of a body and the best slot on the attention grid": ("masks.grid_iou", ".2f"),
        "foreground ARI of the slots": ("masks.foreground_ari", ".2f"),
        "attention on a body, uniform = 1": ("masks.attention_ratio", ".2f"),
    },
}
"""The rows of each table: the place of the figure, where * is a horizon, and its format."""


def fill(page: str, evaluation: Evaluation) -> str:
    """The page with every table between `<!-- NAME -->` and `<!-- end -->` made again."""
    for name, rows in TABLES.items():
        ahead = AHEAD if any("*" in place for place, _ in rows.values()) else ("",)
        lines = [f"| {'frames ahead' if len(ahead) > 1 else 'over all frames'} |" + "".join(f" {at} |" for at in ahead)]
        lines.append("|---|" + "---|" * len(ahead))
        for title, (place, form) in rows.items():
            cells = " | ".join(_cell(evaluation, place.replace("*", str(at)), form) for at in ahead)
            lines.append(f"| {title} | {cells} |")
        before, after = f"<!-- {name} -->\n", "<!-- end -->"
        page, count = re.subn(f"{before}.*?{after}", before + "\n".join(lines) + f"\n{after}", page, flags=re.DOTALL)
        assert count == 1, f"the page has {count} places for {name}"
    return page


def _cell(evaluation: Evaluation, place: str, form: str) -> str:
    value, bounds = (_at(each, place) for each in (evaluation, evaluation.intervals))
    interval = f" [{bounds_text(bounds, form)}]" if bounds else ""
    return f"{number_text(value, form)}{interval}".replace("-", "−")


def _at(figures: Any, place: str) -> Any:
    for name in place.split("."):
        figures = figures[int(name)] if name.isdigit() else getattr(figures, name)
    return figures


def read_evaluation() -> Evaluation:
    """The evaluation that the package comes with."""
    path = locate("bundled:cartpole") / EVALUATION
    return Evaluation.from_json(path.read_text(encoding="utf-8"), str(path))


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), read_evaluation()), encoding="utf-8")
