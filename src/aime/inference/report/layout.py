"""What stands where on the report's page, and the sentence that explains each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from aime.inference.animation import encode_webp
from aime.inference.evaluation import DEFINITIONS, Evaluation
from aime.inference.predict import film_strips
from aime.inference.render import Strip, film, scale_for
from aime.inference.report import charts, page
from aime.inference.report.figures import KEY, attention, components, gradients, strip_figure
from aime.inference.report.material import Material
from aime.inference.report.page import Cell, Section
from aime.inference.report.training_log import names as logged_names
from aime.inference.strips import dream_strips

STRIPS = 3
"""Clips that are also shown as filmstrips."""

FILM_TILE = 128
"""Screen pixels that a frame of the film is enlarged to, about."""

_LOSSES = (
    "Losses against the step: their weighted sum first, then every term by its task; faint is each value, strong a "
    "running mean."
)
_HEALTH = "What else was logged: the health of the parts, the gradient, the learning rate and the speed."
_NOT_CURVES = ("step", "seconds", "frames")


def lay_out(material: Material) -> str:
    """The whole page as HTML."""
    evaluation = material.evaluation
    lead = (
        f"A world model of {material.parameters / 1e6:.1f} M parameters (preset {escape(material.info.preset)}), "
        f"judged on {evaluation.clips} clips of {_unseen(evaluation)} {escape(evaluation.data)}: it sees "
        f"{_frames(evaluation.context)} and dreams the next {evaluation.horizon}, given the actions."
    )
    sections = [
        Section("dreams", "Dreams", _dreams(material)),
        Section("strips", "Filmstrips", _strips(material)),
        Section("attention", "Attention", attention(material)),
        Section("components", "Components of the mixture", components(material)),
        Section("skill", "Prediction", _prediction(evaluation)),
        Section("inside", "Inside the model", _inside(material)),
        Section("training", "Training", _training(material)),
        Section("settings", "Settings and definitions", _settings(material)),
    ]
    head = page.facts(_facts(material)) + _table(evaluation)
    return page.page(f"AIME report: {material.info.path.resolve().name}", lead, head, sections)


def _unseen(evaluation: Evaluation) -> str:
    return "the held-out episodes of" if evaluation.split == "held-out" else "all episodes of"


def _facts(material: Material) -> list[tuple[str, str]]:
    evaluation = material.evaluation
    reconstruction, ahead = evaluation.reconstruction, min(5, evaluation.horizon)
    alone = f"reconstruction PSNR; the mean image alone scores {reconstruction.psnr_mean_image:.1f}"
    values = [
        (f"{reconstruction.psnr:.1f} dB", alone),
        (_signed(evaluation.horizons[ahead].skill), f"skill {_frames(ahead)} ahead; 0 is a baseline, 1 is perfect"),
        (_minus(f"{evaluation.surprise:,.0f}"), "nats of surprise a frame; lower is better"),
        (f"{evaluation.effective_components:.1f}", "effective components of the mixture"),
        (f"{evaluation.codebook_perplexity:.0f}", f"codes in even use, of {material.info.model.tokenizer.codes}"),
    ]
    if material.log:
        last = {"seconds": math.nan, "frames": math.nan, **material.log[-1]}
        trained = f"of training: {last['step']:,.0f} steps, {last['frames']:,.0f} frames"
        values.append((f"{last['seconds'] / 60:.1f} min", trained))
    return values


def _table(evaluation: Evaluation) -> str:
    shown = [each for each in (1, 5, 15, 45) if each <= evaluation.horizon]
    if evaluation.horizon not in shown:
        shown.append(evaluation.horizon)
    horizons, baselines, best = evaluation.horizons, evaluation.baselines, evaluation.best_of
    mean = f"mean of {evaluation.samples}"

    def row(name: str, value: Callable[[int], Cell]) -> tuple[str, Sequence[Cell]]:
        return name, [value(each) for each in shown]

    rows = [
        row(f"skill, {mean}", lambda ahead: _skill(horizons[ahead].skill)),
        row("skill, most likely", lambda ahead: _skill(horizons[ahead].skill_likeliest)),
        row(f"PSNR, {mean}", lambda ahead: _decibels(horizons[ahead].psnr)),
        row("PSNR, most likely", lambda ahead: _decibels(horizons[ahead].psnr_likeliest)),
        row(f"PSNR, best of {evaluation.best_of_samples}", lambda ahead: _decibels(best[ahead].psnr)),
        row("PSNR, persistence", lambda ahead: _decibels(baselines.persistence[ahead].psnr)),
        row("PSNR, climatology", lambda ahead: _decibels(baselines.climatology[ahead].psnr)),
        row(f"SSIM, {mean}", lambda ahead: Cell(f"{horizons[ahead].ssim:.3f}")),
        row("energy score", lambda ahead: Cell(f"{horizons[ahead].energy_score:.4f}")),
        row("coverage of 80 %, where samples differ", lambda ahead: _share(horizons[ahead].coverage_uncertain)),
    ]
    if evaluation.states:
        states = evaluation.states
        rows += [
            row("state, R²", lambda ahead: _skill(states[ahead].r2)),
            row("state, error in spreads of the data", lambda ahead: Cell(f"{states[ahead].error:.2f}")),
        ]
    return page.table(["frames ahead", *map(str, shown)], rows)


def _dreams(material: Material) -> str:
    dreams = material.dreams
    scale = scale_for(dreams.truth.shape[2], FILM_TILE)
    gaze = material.watched.gaze
    content = encode_webp(film(film_strips(dreams, gaze), dreams.context, scale))
    caption = (
        "Each row is a clip, chosen for its movement: what happened, the single most likely future that the model "
        f"dreams after {_frames(dreams.context)}, where the two differ (black is no difference), "
        f"{'' if gaze is None else 'where it attends, '}and sampled futures: {KEY}."
    )
    return page.figure(page.picture(content, "webp", "truth, dream, difference and samples, side by side"), caption)


def _strips(material: Material) -> str:
    figures = []
    for clip in range(min(STRIPS, material.dreams.clips)):
        caption = (
            f"Clip {clip + 1}; the numbers count frames after the last one seen, and the reconstruction sees every "
            f"frame: {KEY}."
        )
        rows = _strip_rows(material, clip)
        figures.append(strip_figure(material.dreams, rows, f"filmstrip of clip {clip + 1}", caption))
    return "".join(figures)


def _strip_rows(material: Material, clip: int) -> list[Strip]:
    dreams = material.dreams
    return [
        Strip("truth", dreams.truth[clip], dreamt=False),
        Strip("reconstruction", material.watched.reconstructions[clip], dreamt=False),
        *dream_strips(dreams, clip, samples=2),
    ]


def _prediction(evaluation: Evaluation) -> str:
    return page.side_by_side(
        page.figure(
            charts.skill_chart(evaluation),
            "Skill is 1 - MSE / MSE of the better baseline at that horizon: above 0 the model knows where things go, "
            "and 1 is perfect; what lies far below is cut off.",
        ),
        page.figure(
            charts.psnr_chart(evaluation),
            "PSNR of each frame, then averaged; squared error rewards the mean of the futures, not a sharp guess, "
            "which is why single futures score lower.",
        ),
        page.figure(
            charts.similarity_chart(evaluation),
            "Structural similarity compares local patterns, not single pixels: 1 is the same picture, and blur lowers "
            "it.",
        ),
        page.figure(
            charts.coverage_chart(evaluation),
            "If the samples spread as widely as the truth does, 80 % of it lies within their central 80 % interval; "
            "below, the model is too sure of itself.",
        ),
    ) + _state(evaluation)


def _state(evaluation: Evaluation) -> str:
    if evaluation.states is None:
        return ""
    return page.figure(
        charts.state_chart(evaluation.states),
        "The robot's or simulator's own state, foretold beside the frames: root mean square error in units of each "
        "number's spread over the training data, of the model, of the last known state and of the mean.",
    )


def _inside(material: Material) -> str:
    watched, evaluation = material.watched, material.evaluation
    return page.figure(
        charts.mixture_chart(watched.weights),
        "Weights of the prior's mixture, given all frames before: a bright row is a component that expects the next "
        "frame, and several bright rows at once are several futures held possible.",
    ) + page.side_by_side(
        page.figure(
            charts.surprise_chart(evaluation.surprise_by_frame, material.surprise, evaluation.context),
            "Surprise is -log p(frame | past): peaks are frames that the model did not expect.",
        ),
        page.figure(
            charts.codebook_chart(watched.codes),
            "How often the tokenizer uses each code on the clips above; a long empty tail would be dead codes.",
        ),
    )


def _training(material: Material) -> str:
    logged = [name for name in logged_names(material.log) if name not in _NOT_CURVES]
    if len(material.log) < 2 or not logged:
        return page.note("The run has logged no curve yet.")
    logged = [name for name in logged if not name.startswith(charts.BALANCE)]
    losses = [name for name in logged if name == "loss" or "/" in name]
    rest = [name for name in logged if name not in losses]
    return _curves(material, losses, _LOSSES) + gradients(material) + _curves(material, rest, _HEALTH)


def _curves(material: Material, names: Sequence[str], caption: str) -> str:
    return page.figure(charts.curves_chart(material.log, names), caption) if names else ""


def _settings(material: Material) -> str:
    return (
        page.folded("What each number means", page.definitions(DEFINITIONS))
        + page.folded("Configuration of the run", page.code(material.config))
        + "<h3>Where this page was made</h3>"
        + page.definitions(material.environment)
    )


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _signed(value: float) -> str:
    return "undefined" if math.isnan(value) else _minus(f"{value:+.2f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _skill(value: float) -> Cell:
    return Cell(_signed(value), "good" if value > 0 else "bad" if value < 0 else "")


def _decibels(value: float) -> Cell:
    return Cell(f"{value:.1f} dB")


def _share(value: float) -> Cell:
    return Cell("too few samples" if math.isnan(value) else f"{100 * value:.0f} %")
