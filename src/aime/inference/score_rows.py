"""The figures of an evaluation that tables show, in the terminal, the report and the docs: titles, places, formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from aime.inference.evaluation import Evaluation, Figures
from aime.primitives.intervals import Bounds


class Row(NamedTuple):
    """A figure of an evaluation."""

    title: str
    """May name {samples} and {best}: how many futures are sampled, and among how many the best is sought."""
    place: str
    """Names of fields; * stands for a number of frames ahead."""
    form: str
    """The format of the figure; one with a sign is good above 0 and bad below."""


BY_HORIZON = (
    Row("skill, mean of {samples} futures", "horizons.*.skill", "+.2f"),
    Row("skill, most likely future", "horizons.*.skill_likeliest", "+.2f"),
    Row("PSNR in dB, mean of {samples}", "horizons.*.psnr", ".1f"),
    Row("PSNR in dB, most likely", "horizons.*.psnr_likeliest", ".1f"),
    Row("PSNR in dB, best of {best}", "best_of.*.psnr", ".1f"),
    Row("PSNR in dB, persistence", "baselines.persistence.*.psnr", ".1f"),
    Row("PSNR in dB, mean image", "baselines.mean_image.*.psnr", ".1f"),
    Row("SSIM, mean of {samples}", "horizons.*.ssim", ".3f"),
    Row("energy score", "horizons.*.energy_score", ".4f"),
    Row("coverage of the 80 % interval", "horizons.*.coverage", ".2f"),
    Row("the same where samples differ", "horizons.*.coverage_uncertain", ".2f"),
    Row("predicted state, R²", "states.*.r2", "+.2f"),
    Row("predicted state, error in standard deviations", "states.*.error", ".2f"),
)

BODY = (
    Row("foreground F1, most likely future", "foreground.horizons.*.likeliest.f1", ".2f"),
    Row("foreground F1, sampled futures", "foreground.horizons.*.samples.f1", ".2f"),
    Row("foreground F1, persistence", "foreground.horizons.*.persistence.f1", ".2f"),
    Row("foreground F1, reconstruction", "foreground.horizons.*.reconstruction.f1", ".2f"),
    Row("state read, R², most likely future", "read_states.horizons.*.likeliest.r2", ".2f"),
    Row("state read, R², sampled futures", "read_states.horizons.*.samples.r2", ".2f"),
    Row("state read, R², persistence", "read_states.horizons.*.persistence.r2", ".2f"),
    Row("state read, R², true frames", "read_states.horizons.*.true_frames.r2", ".2f"),
)

OVERALL = (
    Row("reconstruction, PSNR in dB", "reconstruction.psnr", ".1f"),
    Row("mean image, PSNR in dB", "reconstruction.psnr_mean_image", ".1f"),
    Row("bound on -log p(x), nats a frame", "frame_bound", ",.0f"),
    Row("-log p(z), nats a frame", "prior_nll", ".1f"),
    Row("KL of z, nats a frame", "kl_z", ".1f"),
    Row("KL of the mixture weights, nats a frame", "kl_hierarchical", ".1f"),
    Row("surprise of the latents", "latent_surprise", ".2f"),
    Row("effective components", "effective_components", ".1f"),
    Row("codebook perplexity", "codebook_perplexity", ".0f"),
)

SHARPNESS = (
    Row("sharpness, data = 1: most likely future", "sharpness.likeliest", ".2f"),
    Row("sharpness, one sampled future", "sharpness.sample", ".2f"),
    Row("sharpness, reconstruction", "sharpness.reconstruction", ".2f"),
    Row("sharpness of the body, most likely future", "body_sharpness.likeliest", ".2f"),
    Row("sharpness of the body, one sampled future", "body_sharpness.sample", ".2f"),
    Row("sharpness of the body, reconstruction", "body_sharpness.reconstruction", ".2f"),
)

MASKS = (
    Row("IoU of a body with its best slot", "masks.slot_iou", ".2f"),
    Row("IoU of a body with the whole frame", "masks.whole_iou", ".2f"),
    Row("best IoU on the attention grid", "masks.grid_iou", ".2f"),
    Row("foreground ARI of the slots", "masks.foreground_ari", ".2f"),
    Row("attention on a body, uniform = 1", "masks.attention_ratio", ".2f"),
)


def figure_at(figures: Figures[Any], place: str, ahead: int = 1) -> Any:
    """The figure at a place, or its interval; None where the evaluation has none.

    Args:
        figures: an evaluation, or its intervals.
        place: as in `Row`.
        ahead: frames ahead, for *.
    """
    found: Any = figures
    for name in place.split("."):
        if found is None:
            return None
        found = found[ahead] if name == "*" else getattr(found, name)
    return found


def rows_of(
    evaluation: Evaluation, rows: Sequence[Row], shown: Sequence[int] = (1,)
) -> Iterator[tuple[str, str, list[tuple[float, Bounds | None]]]]:
    """Title, format, and figures with their intervals, of the rows that an evaluation has.

    Args:
        evaluation: of any data.
        rows: in the order of the table.
        shown: numbers of frames ahead, one figure each.
    """
    for title, place, form in rows:
        if figure_at(evaluation, place) is not None:
            pairs = [tuple(figure_at(of, place, at) for of in (evaluation, evaluation.intervals)) for at in shown]
            yield title.format(samples=evaluation.samples, best=evaluation.best_of_samples), form, pairs


def horizons_of(evaluation: Evaluation) -> list[int]:
    """The numbers of frames ahead that tables show."""
    return [each for each in (1, 5, 15, 45) if each < evaluation.horizon] + [evaluation.horizon]
