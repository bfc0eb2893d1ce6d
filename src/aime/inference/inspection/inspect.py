"""A run inspected: its clips perceived once, each intervention judged on them, and the state told from its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from aime.data.clips import clip_places, clip_seeds, read_clips
from aime.errors import AimeError
from aime.inference.evaluate import Progress, weights_digest
from aime.inference.inspection.chain import Recording, Window, baselines, record, score
from aime.inference.inspection.interventions import INTACT, INTERVENTIONS, Intervention
from aime.inference.inspection.measures import Figures, Measure, figure, loss, measures_up_to
from aime.inference.inspection.probes import probe_parts
from aime.inference.inspection.result import Effect, Figure, Finding, Inspection
from aime.inference.inspection.verdict import judge, strongest
from aime.inference.loading import Device, load_run
from aime.inference.unseen import Part, open_unseen
from aime.primitives.files import write_atomically
from aime.world_model.model import AIME

INSPECTION = "inspection.json"
"""The file in a run directory that the report shows."""

MOST_CLIPS = 64
"""Clips that an inspection takes unless told otherwise: the first of every episode, then the second, and so on."""


def inspect_run(
    run: str | Path,
    data: str | Path | None = None,
    context: int = 5,
    horizon: int = 45,
    samples: int = 16,
    clips: int | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
    progress: Progress | None = None,
    part: Part = "validation",
) -> Inspection:
    """Measure what each part of a run does, by interventions on unseen clips; always gives the same numbers.

    Args:
        run: the run directory, or bundled:NAME.
        data: what `open_dataset` takes; by default, the run's own data. Episodes that the run was trained on are left
            out: see `open_unseen`.
        context: frames that the model sees, 1 or more.
        horizon: frames that it then predicts, 1 or more.
        samples: sampled futures of each clip, 1 or more.
        clips: at most so many clips, `MOST_CLIPS` by default.
        device: where to compute.
        out: a JSON file to write; one that is there is replaced.
        progress: told how much is done, and how much there is.
        part: the half of the unseen episodes; "validation" leaves the test half for reports.

    Raises:
        AimeError: if `run` is no run, if `data` is missing, damaged, too short or does not fit the model, if there are
            fewer than two clips, if a number is below 1, or if `out` cannot be written.
    """
    if samples < 1:
        raise AimeError(f"samples is {samples}; expected 1 or more: take --samples 16, say")
    count = MOST_CLIPS if clips is None else clips
    info, model = load_run(run, device)
    unseen = open_unseen(info, data, context, horizon, part)
    places = clip_places(unseen.dataset, context + horizon, max(count, 1))
    if len(places.episodes) < 2:
        raise AimeError(
            f"{unseen.dataset.name}: there is 1 clip of {context + horizon} frames to inspect, expected 2 or more, "
            "since clips exchange their values; take --clips 64, more episodes, or a smaller --horizon"
        )
    batch = read_clips(unseen.dataset, places, context + horizon)
    measures = measures_up_to(horizon)
    window = Window(context, [each.horizon for each in measures if each.kind == "skill"], samples)
    present = [each for each in INTERVENTIONS if each.applies(info.model)]
    steps, size = 2 + len(present), len(places.episodes)

    def told(done: int) -> None:
        if progress is not None:
            progress(done, steps * size)

    recording = record(model, batch, clip_seeds(unseen.dataset, places), told)
    references = baselines(model, recording, window)
    intact = Figures(score(model, recording, window, INTACT), references, window.horizons)
    told(2 * size)
    findings = []
    for number, intervention in enumerate(present, start=3):
        scores = score(model, recording, window, intervention, intervention.measures)
        changed = Figures(scores, references, window.horizons)
        findings.append(_finding(intervention, intact, changed, measures, places.episodes))
        told(number * size)
    result = Inspection(
        run=str(run),
        data=unseen.dataset.name,
        split=unseen.part,
        unseen=unseen.title,
        content=unseen.content,
        weights=weights_digest(run),
        episodes=len(np.unique(places.episodes)),
        clips=size,
        context=context,
        horizon=horizon,
        samples=samples,
        intact=tuple((each.name, Figure.of(figure(intact, each, places.episodes))) for each in measures),
        findings=tuple(findings),
        absent=tuple(each.name for each in INTERVENTIONS if each not in present),
        probes=probe_parts(_probed(model, recording), batch.states, places.episodes, unseen.dataset.state_names),
    )
    if out is not None:
        write_atomically(Path(out), result.to_json().encode())
    return result


def _finding(
    intervention: Intervention,
    intact: Figures,
    changed: Figures,
    measures: Sequence[Measure],
    episodes: Int64[np.ndarray, " B"],
) -> Finding:
    effects = []
    for measure in measures:
        if not changed.knows(measure):
            effects.append(Effect(measure.name, None, None))
            continue
        lost = loss(intact, changed, measure, episodes)
        effects.append(Effect(measure.name, Figure.of(lost), judge(lost, measure.notable)))
    verdict = strongest(each.verdict for each in effects if each.verdict is not None)
    return Finding(intervention.part, intervention.change, verdict, tuple(effects))


@torch.inference_mode()
def _probed(model: AIME, recording: Recording) -> dict[str, Float[Tensor, "B T F"]]:
    """The parts from which the state is told."""
    beliefs = model.dynamics.scan(recording.latents, recording.contexts, recording.actions).beliefs
    parts = {
        "c_t": recording.contexts,
        "z_t": recording.latents,
        "(h, z)": torch.cat([beliefs, recording.latents], dim=-1),
    }
    return {name: features for name, features in parts.items() if features.shape[-1]}
