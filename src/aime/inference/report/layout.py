"""The layout of the report's page, and the sentence that explains each figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from aime.inference.animation import encode_webp
from aime.inference.evaluation import DEFINITIONS, Evaluation
from aime.inference.predict import film_strips
from aime.inference.render import Strip, film, scale_for
from aime.inference.report import charts, horizon_charts, page
from aime.inference.report.body import body_section
from aime.inference.report.figures import KEY, attention, components, gradients, strip_figure
from aime.inference.report.inspection import inspection
from aime.inference.report.material import Material
from aime.inference.report.page import Cell, Section
from aime.inference.report.training_log import names as logged_names
from aime.inference.score_rows import BY_HORIZON, OVERALL, SHARPNESS, Row, horizons_of, rows_of
from aime.inference.strips import dream_strips
from aime.primitives.interval_text import bounds_text, counted, number_text
from aime.primitives.intervals import Bounds

STRIPS = 3
"""Clips that are also shown as filmstrips."""

FILM_TILE = 128
"""Screen pixels that a frame of the film is enlarged to, about."""

_LOSSES = "Losses by step: the weighted sum first, then every term by task. Faint: each value; strong: a running mean."
_HEALTH = "Diagnostics: parts of the model, gradient, learning rate and speed."
_NOT_CURVES = ("step", "seconds", "frames")


def lay_out(material: Material) -> str:
    """The whole page as HTML."""
    evaluation = material.evaluation
    lead = (
        f"A world model of {material.parameters / 1e6:.1f} M parameters (preset {escape(material.info.preset)}), "
        f"evaluated on {counted(evaluation.clips, 'clip')} from {counted(evaluation.episodes, 'episode')} of "
        f"{escape(evaluation.data)} ({escape(evaluation.unseen)}): it sees {_frames(evaluation.context)} and "
        f"predicts the next {evaluation.horizon}, given the actions. {_certainty(evaluation)}"
    )
    sections = [
        Section("predictions", "Predicted futures", _predicted_futures(material)),
        Section("strips", "Filmstrips", _strips(material)),
        Section("attention", "Attention", attention(material)),
        Section("components", "Components of the mixture", components(material)),
        Section("skill", "Scores by horizon", _prediction(evaluation)),
        Section("body", "The body in predictions", body_section(evaluation)),
        Section("inside", "Inside the model", _inside(material)),
        Section("parts", "What each part does", inspection(material.inspection)),
        Section("training", "Training", _training(material)),
        Section("settings", "Settings and definitions", _settings(material)),
    ]
    head = page.facts(_facts(material)) + _table(evaluation)
    return page.page(f"AIME report: {material.info.path.resolve().name}", lead, head, sections)


def _certainty(evaluation: Evaluation) -> str:
    if evaluation.episodes == 1:
        return "There is one episode, so there are no intervals."
    return "Below each figure, and as a band around each curve, its 95 % interval over episodes."


def _facts(material: Material) -> list[tuple[Cell, str]]:
    evaluation, ends = material.evaluation, material.evaluation.intervals
    reconstruction, ahead = evaluation.reconstruction, min(5, evaluation.horizon)
    alone = f"reconstruction PSNR; the mean image has {reconstruction.psnr_mean_image:.1f}"
    drawn = _cell(reconstruction.psnr, ends.reconstruction.psnr, ".1f")
    codes = material.info.model.tokenizer.codes
    values = [
        (replace(drawn, text=f"{drawn.text} dB"), alone),
        (
            _cell(evaluation.horizons[ahead].skill, ends.horizons[ahead].skill, "+.2f"),
            f"skill {_frames(ahead)} ahead; 0 is a baseline, 1 is perfect",
        ),
        (_cell(evaluation.frame_bound, ends.frame_bound, ",.0f"), "upper bound on nats a frame; lower is better"),
        (_cell(evaluation.effective_components, ends.effective_components, ".1f"), "effective mixture components"),
        (
            _cell(evaluation.codebook_perplexity, ends.codebook_perplexity, ".0f"),
            f"codebook perplexity, of {codes} codes",
        ),
    ]
    if material.log:
        last = {"seconds": math.nan, "frames": math.nan, **material.log[-1]}
        trained = f"of training: {last['step']:,.0f} steps, {last['frames']:,.0f} frames"
        values.append((Cell(f"{last['seconds'] / 60:.1f} min"), trained))
    return values


def _table(evaluation: Evaluation) -> str:
    shown = horizons_of(evaluation)
    ahead = page.table(["frames ahead", *map(str, shown)], _rows(evaluation, BY_HORIZON, shown))
    return ahead + page.table(["over all frames", "score"], _rows(evaluation, OVERALL + SHARPNESS))


def _rows(evaluation: Evaluation, rows: Sequence[Row], shown: Sequence[int] = (1,)) -> list[tuple[str, list[Cell]]]:
    found = rows_of(evaluation, rows, shown)
    return [(_minus(title), [_cell(*pair, form) for pair in pairs]) for title, form, pairs in found]


def _predicted_futures(material: Material) -> str:
    dreams = material.dreams
    scale = scale_for(dreams.truth.shape[2], FILM_TILE)
    maps = material.filtered.attention
    content = encode_webp(film(film_strips(dreams, maps), dreams.context, scale))
    caption = (
        "Each row is a clip, chosen for its movement: the truth, the most likely future after "
        f"{_frames(dreams.context)}, their difference (black is none), {'' if maps is None else 'attention, '}and "
        f"sampled futures: {KEY}."
    )
    return page.figure(page.picture(content, "truth, most likely future, difference and samples"), caption)


def _strips(material: Material) -> str:
    figures = []
    for clip in range(min(STRIPS, material.dreams.clips)):
        caption = (
            f"Clip {clip + 1}; the numbers count frames after the context, and the reconstruction sees every frame: "
            f"{KEY}."
        )
        rows = _strip_rows(material, clip)
        figures.append(strip_figure(material.dreams, rows, f"filmstrip of clip {clip + 1}", caption))
    return "".join(figures)


def _strip_rows(material: Material, clip: int) -> list[Strip]:
    dreams = material.dreams
    return [
        Strip("truth", dreams.truth[clip], dreamt=False),
        Strip("reconstruction", material.filtered.reconstructions[clip], dreamt=False),
        *dream_strips(dreams, clip, samples=2),
    ]


def _prediction(evaluation: Evaluation) -> str:
    return page.side_by_side(
        page.figure(
            horizon_charts.skill_chart(evaluation),
            "Skill is 1 - MSE / MSE of the better baseline at that horizon: above 0 the model is better than "
            "both, 1 is perfect, and very low values are cut off.",
        ),
        page.figure(
            horizon_charts.psnr_chart(evaluation),
            "PSNR of each frame, then averaged. Squared error favours the mean of the sampled futures, so single "
            "futures score lower.",
        ),
        page.figure(
            horizon_charts.similarity_chart(evaluation),
            "Structural similarity compares local patterns: 1 is the same picture, and blur lowers it.",
        ),
        page.figure(
            horizon_charts.coverage_chart(evaluation),
            "Of calibrated samples, the central 80 % interval contains 80 % of the true values; below that, the model "
            "is overconfident.",
        ),
    ) + _state(evaluation)


def _state(evaluation: Evaluation) -> str:
    if evaluation.states is None:
        return ""
    return page.figure(
        horizon_charts.state_chart(evaluation),
        "The state of the robot or simulator, predicted with the frames: root mean square error in units of each "
        "entry's standard deviation over the training data, of the model, of the last known state and of the mean.",
    )


def _inside(material: Material) -> str:
    filtered, evaluation = material.filtered, material.evaluation
    return page.figure(
        charts.mixture_chart(filtered.weights),
        "Mixture weights of the prior, given all earlier frames: several bright rows at once are several futures that "
        "the model considers possible.",
    ) + page.side_by_side(
        page.figure(
            charts.surprise_chart(evaluation, material.surprise),
            "Surprise is -log p(latent | past) relative to its usual value at the same speed of motion: a peak is an "
            "unexpected event. The first three frames are too few to tell.",
        ),
        page.figure(
            charts.codebook_chart(filtered.codes),
            "How often the tokenizer uses each code on the clips above; an empty tail is dead codes.",
        ),
    )


def _training(material: Material) -> str:
    logged = [name for name in logged_names(material.log) if name not in _NOT_CURVES]
    if len(material.log) < 2 or not logged:
        return page.note("The run has no training curves.")
    logged = [name for name in logged if not name.startswith(charts.BALANCE)]
    losses = [name for name in logged if name == "loss" or "/" in name]
    rest = [name for name in logged if name not in losses]
    return _curves(material, losses, _LOSSES) + gradients(material) + _curves(material, rest, _HEALTH)


def _curves(material: Material, names: Sequence[str], caption: str) -> str:
    return page.figure(charts.curves_chart(material.log, names), caption) if names else ""


def _settings(material: Material) -> str:
    return (
        page.folded("Definitions", page.definitions(DEFINITIONS))
        + page.folded("Configuration of the run", page.code(material.config))
        + "<h3>Where this page was made</h3>"
        + page.definitions(material.environment)
    )


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _cell(value: float, ends: Bounds | None, form: str) -> Cell:
    """A figure; one with a sign is marked good or bad where its interval excludes 0."""
    low, high = (value, value) if ends is None else ends
    kind = "" if "+" not in form else "good" if low > 0 else "bad" if high < 0 else ""
    return Cell(_minus(number_text(value, form)), kind, _minus(bounds_text(ends, form)))
