"""Everything that a report shows, computed and read before anything is drawn."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from aime.data import load_clips
from aime.data.clips import clip_seeds, read_clips
from aime.errors import AimeError
from aime.inference.components import Components, find_components
from aime.inference.dreams import Dreams, dream, to_numpy
from aime.inference.evaluate import ProgressCallback, evaluate_run, weights_digest
from aime.inference.evaluation import Evaluation
from aime.inference.filtering import FilteredClips, filter_clips
from aime.inference.inspection import Inspection
from aime.inference.loading import load_run, moving_clip_starts
from aime.inference.report.inspection import read_inspection
from aime.inference.report.training_log import Record, read_log
from aime.inference.request import EvaluationRequest
from aime.inference.unseen import open_unseen
from aime.world_model.saved import CONFIG, RunInfo

CLIPS = 4
SAMPLES = 4
"""Clips, and sampled futures of each, that a report shows."""

GROUPED = 12
"""Clips whose frames are grouped by the components of the mixture, at most."""

EVALUATION = "evaluation.json"
"""An evaluation in the run directory that is of these weights and this data is not made again."""


@dataclass(frozen=True)
class Material:
    """The content of a report."""

    info: RunInfo
    parameters: int
    evaluation: Evaluation
    dreams: Dreams
    filtered: FilteredClips
    """The clips of the dreams, all of whose frames are seen."""
    surprise: Float[np.ndarray, "B T"]
    """Of their latents."""
    components: Components
    inspection: Inspection | None
    """Where the run directory has one of these weights."""
    log: list[Record]
    config: str
    environment: Mapping[str, str]


def gather(run: str | Path, request: EvaluationRequest, progress: ProgressCallback | None) -> Material:
    """Read and compute what the report of a run shows.

    Raises:
        AimeError: as `evaluate_run`, and if the run's log is damaged.
    """
    info, model = load_run(run, request.device)
    unseen = open_unseen(info, request.data, request.context, request.horizon, request.part)
    log = read_log(info.path)
    places = moving_clip_starts(unseen.dataset, request.length, CLIPS)
    clips = read_clips(unseen.dataset, places, request.length).to(model.device)
    seeds = clip_seeds(unseen.dataset, places)
    evaluation = _earlier_evaluation(info.path, unseen.content, request)
    if evaluation is None:
        evaluation = evaluate_run(info.path, request, progress=progress)
    return Material(
        info=info,
        parameters=sum(weight.numel() for weight in model.parameters()),
        evaluation=evaluation,
        dreams=dream(model, clips, request.context, SAMPLES, seeds),
        filtered=filter_clips(model, clips),
        surprise=to_numpy(
            model.surprise(
                clips.frames,
                clips.actions,
                states=clips.states,
                action_valid=clips.action_valid,
            )
        ),
        components=find_components(model, load_clips(unseen.dataset, request.length, GROUPED)),
        inspection=read_inspection(info.path, weights_digest(info.path)),
        log=log,
        config=(info.path / CONFIG).read_text(encoding="utf-8"),
        environment=environment(model.device),
    )


def environment(device: torch.device) -> dict[str, str]:
    """Machine and versions that the numbers were computed with."""
    gpu = {"GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    packages = ("aime", "torch", "numpy", "h5py", "matplotlib", "pillow")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, of which torch uses {torch.get_num_threads()}",
        **gpu,
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _earlier_evaluation(run: Path, content: str, request: EvaluationRequest) -> Evaluation | None:
    path = run / EVALUATION
    if not path.is_file():
        return None
    try:
        found = Evaluation.from_json(path.read_text(encoding="utf-8"), str(path))
    except AimeError:
        return None
    fits = (found.context, found.horizon) == (request.context, request.horizon) and found.content == content
    return found if fits and found.weights == weights_digest(run) else None


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
