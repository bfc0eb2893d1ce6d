"""The inspection of a run: clips encoded once, every intervention scored on them, the state predicted from parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from aime.data import Dataset
from aime.data.clips import clip_seeds, clip_starts, read_clips
from aime.data.drawing import ClipStarts
from aime.errors import AimeError
from aime.inference.evaluate import ProgressCallback, weights_digest
from aime.inference.inspection.chain import Recording, Window, baselines, follow, record, score
from aime.inference.inspection.figures import mask_figures, token_figures
from aime.inference.inspection.interventions import INTACT, INTERVENTIONS, Intervention
from aime.inference.inspection.measures import Figures, Measure, figure, horizons_up_to, loss, measures_up_to
from aime.inference.inspection.occlusion import occlusion_figures
from aime.inference.inspection.probes import probe_parts
from aime.inference.inspection.result import FIGURES, Effect, Figure, Finding, Inspection
from aime.inference.inspection.verdict import judge, strongest
from aime.inference.loading import load_run
from aime.inference.references import read_masks
from aime.inference.request import EvaluationRequest
from aime.inference.unseen import open_unseen
from aime.primitives.files import write_atomically
from aime.world_model.model import AIME

INSPECTION = "inspection.json"
"""The file in a run directory that the report shows."""

CLIPS = 24
"""Clips, at most, unless a request says otherwise: more clips of the same episodes narrow no interval over episodes."""


def inspect_run(
    run: str | Path,
    request: EvaluationRequest | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Inspection:
    """Measure the effect of each part of a run, by interventions on unseen clips; always gives the same numbers.

    Args:
        run: the run directory, or bundled:NAME.
        request: on which clips, two or more, and how; by default `CLIPS` of the validation part, which leaves the
            test part for reports.
        out: a JSON file to write; one that is there is replaced.
        progress: called with how much is done, and how much there is.

    Raises:
        AimeError: if `run` is no run, if the data is missing, damaged, too short or does not fit the model, if there
            are fewer than two clips, or if `out` cannot be written.
    """
    request = EvaluationRequest(part="validation", clips=CLIPS) if request is None else request
    info, model = load_run(run, request.device)
    unseen = open_unseen(info, request.data, request.context, request.horizon, request.part)
    places = _two_or_more(unseen.dataset, request)
    batch = read_clips(unseen.dataset, places, request.length)
    interventions = [each for each in INTERVENTIONS if each.applies(info.model)]
    size, passes = len(places.episodes), 2 + len(interventions)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, passes * size)

    masks = read_masks(unseen.dataset, places, request.length)
    seeds, names = clip_seeds(unseen.dataset, places), unseen.dataset.state_names
    recording = record(model, batch, seeds, tell, masks)
    window = Window(request.context, horizons_up_to(request.horizon), request.samples)
    intact, findings = _judged(
        model, recording, window, interventions, places.episodes, lambda done: tell((1 + done) * size)
    )
    probed = probe_parts(_probed(model, recording), batch.states, places.episodes, names)
    figures = token_figures(model, recording, places.episodes) | mask_figures(model, recording, places.episodes)
    figures |= occlusion_figures(model, batch, seeds, recording, places.episodes, names)
    shared = probed.ratio("c_t", "(h, z)")
    if shared is not None:
        figures["context_probe"] = shared
    result = Inspection(
        run=str(run),
        data=unseen.dataset.name,
        split=unseen.part,
        unseen=unseen.title,
        content=unseen.content,
        weights=weights_digest(run),
        episodes=len(np.unique(places.episodes)),
        clips=size,
        context=request.context,
        horizon=request.horizon,
        samples=request.samples,
        intact=intact,
        findings=findings,
        absent=tuple(each.name for each in INTERVENTIONS if each not in interventions),
        probes=probed.probes,
        figures=tuple((name, Figure.of(figures[name])) for name in FIGURES if name in figures),
    )
    if out is not None:
        write_atomically(Path(out), result.to_json().encode())
    return result


def _two_or_more(dataset: Dataset, request: EvaluationRequest) -> ClipStarts:
    """The places of the clips.

    Raises:
        AimeError: if there is only one.
    """
    if request.most_clips < 2:
        raise AimeError("clips is 1; expected 2 or more, which exchange their values: take --clips 24, say")
    places = clip_starts(dataset, request.length, request.most_clips)
    if len(places.episodes) < 2:
        raise AimeError(
            f"{dataset.name}: there is 1 unseen clip of {request.length} frames, expected 2 or more, which exchange "
            "their values; take more episodes, --part all, or a smaller --horizon"
        )
    return places


def _judged(
    model: AIME,
    recording: Recording,
    window: Window,
    interventions: Sequence[Intervention],
    episodes: Int64[np.ndarray, " B"],
    progress: Callable[[int], None],
) -> tuple[tuple[tuple[str, Figure], ...], tuple[Finding, ...]]:
    """The measures of the model as it is, and the effects of each intervention on them."""
    measures = measures_up_to(window.horizons[-1], recording.masks is not None)
    references = baselines(model, recording, window)
    intact = Figures(score(model, recording, window, INTACT), references, window.horizons)
    progress(1)
    findings = []
    for number, intervention in enumerate(interventions, start=2):
        scores = score(model, recording, window, intervention, intervention.measures)
        effects = _effects(intact, Figures(scores, references, window.horizons), measures, episodes)
        verdict = strongest(each.verdict for each in effects if each.verdict is not None and each.measure != "elbo")
        findings.append(Finding(intervention.part, intervention.change, verdict, effects))
        progress(number)
    return tuple((each.name, Figure.of(figure(intact, each, episodes))) for each in measures), tuple(findings)


def _effects(
    intact: Figures, changed: Figures, measures: Sequence[Measure], episodes: Int64[np.ndarray, " B"]
) -> tuple[Effect, ...]:
    effects = []
    for measure in measures:
        if changed.has(measure):
            lost = loss(intact, changed, measure, episodes)
            effects.append(Effect(measure.name, Figure.of(lost), judge(lost, measure.notable)))
        else:
            effects.append(Effect(measure.name, None, None))
    return tuple(effects)


@torch.inference_mode()
def _probed(model: AIME, recording: Recording) -> dict[str, Float[Tensor, "B T F"]]:
    """The parts from which the state is predicted."""
    beliefs = follow(model, recording).track.beliefs
    parts = {
        "c_t": recording.contexts,
        "z_t": recording.latents,
        "(h, z)": torch.cat([beliefs, recording.latents], dim=-1),
    }
    return {name: features for name, features in parts.items() if features.shape[-1]}
