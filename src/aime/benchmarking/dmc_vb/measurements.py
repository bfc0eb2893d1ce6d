"""Measurements of one trained world model, each cached on disk.

RUN/benchmark/probe.json              scores of the probe from (h, z) to the state
RUN/benchmark/clone.json              error of the clone on held-out actions
RUN/benchmark/returns-DISTRACTOR.json returns of the clone

Each file stores the settings of the measurement, which is repeated if they change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aime.agents.evaluate import EvaluationConfig, evaluate_agent
from aime.agents.experience import OnProgress, perceive
from aime.agents.imitation import score_clone
from aime.agents.policy import ClonedPolicy
from aime.agents.runs import train_imitation
from aime.agents.saved import WEIGHTS, agent_directory, load_agent
from aime.benchmarking.dmc_vb.levels import LEVELS
from aime.benchmarking.dmc_vb.plan import PLAYED_FROM, Plan, Training
from aime.inference.learned_data import open_experience
from aime.inference.loading import load_run
from aime.inference.probe import ProbeScores, probe
from aime.inference.unseen import open_unseen
from aime.io.collect.distractors import DistractorKind
from aime.primitives.checksums import sha256_of
from aime.primitives.config_io import from_plain, to_plain
from aime.primitives.files import write_atomically
from aime.primitives.hardware import choose_hardware
from aime.runs.checkpoint_files import read_progress
from aime.runs.schedule import Progress

DIRECTORY = "benchmark"
"""Subdirectory of a run directory."""


class CloneScores(NamedTuple):
    """Errors of a clone on the test part, at its best step."""

    error: float
    """Mean distance between an action and the clone's most likely action; actions are in [-1, 1]."""
    nats: float
    """-log π(a)."""
    agent: str
    """SHA-256 of the clone's weights."""


class Measurements(NamedTuple):
    """The measurements of one training."""

    training: Training
    progress: Progress
    probe: ProbeScores | None
    """None if the data has no states."""
    clone: CloneScores
    returns: dict[str, tuple[float, ...]]
    """Returns of each episode by distractor; empty if clones do not play."""


def measure(plan: Plan, training: Training, on_progress: OnProgress) -> Measurements:
    """Probe, clone and evaluate with a trained world model; cached measurements are kept.

    Args:
        plan: of the benchmark.
        training: a complete one.
        on_progress: takes (stage, done, total, figures).

    Raises:
        AimeError: if a file is damaged or cannot be written.
    """
    progress = read_progress(training.config.out)
    base: dict[str, Any] = {"step": progress.step, "seconds": progress.seconds}
    scores = _probe(plan, training, base, on_progress)
    cloning = {**base, "seed": training.config.seed, "imitation": to_plain(plan.protocol.imitation)}
    clone = _kept_clone(plan, training, cloning, on_progress)
    played = {**cloning, "agent": clone.agent}
    returns: dict[str, tuple[float, ...]] = {
        distractor: _play(plan, training, distractor, played, on_progress) for distractor in _distractors(plan)
    }
    return Measurements(training, progress, scores, clone, returns)


def _distractors(plan: Plan) -> tuple[DistractorKind, ...]:
    return LEVELS if plan.clone_play.environment else ()


def _probe(plan: Plan, training: Training, base: Mapping[str, Any], on_progress: OnProgress) -> ProbeScores | None:
    config, frames = training.config, plan.protocol.probe_frames
    if not plan.levels[0].dataset.has_state:
        return None

    def make() -> Any:
        info, model = load_run(config.out, config.device)
        seen, unseen = open_experience(info, None), open_unseen(info, None, 1, 1).dataset
        return to_plain(probe(model, seen, unseen, frames, lambda done, total: on_progress("probing", done, total, {})))

    found = _kept(config.out, "probe", {**base, "frames": frames}, make)
    return from_plain(ProbeScores, found, str(_file(config.out, "probe")))


def _kept_clone(plan: Plan, training: Training, cloning: Mapping[str, Any], on_progress: OnProgress) -> CloneScores:
    """The clone's scores; repeated if `aime agent imitate` has replaced the clone."""
    run = training.config.out
    if _weights_of_clone(run) != _content(run, "clone").get("found", {}).get("agent"):
        _file(run, "clone").unlink(missing_ok=True)
    return CloneScores(**_kept(run, "clone", cloning, lambda: _clone(plan, training, on_progress)))


def _weights_of_clone(run: Path) -> str | None:
    path = agent_directory(run, "imitate") / WEIGHTS
    return sha256_of(path) if path.is_file() else None


def _clone(plan: Plan, training: Training, on_progress: OnProgress) -> Any:
    config, imitation = training.config, plan.protocol.imitation
    train_imitation(config.out, None, imitation, config.seed, on_progress)
    # other episodes than those that chose the best step
    info, model = load_run(config.out, config.device)
    hardware = choose_hardware(config.device)
    test = perceive(model, open_unseen(info, None, 1, 1).dataset, imitation.frames, hardware)
    policy = load_agent(config.out, "imitate", model.dynamics).policy
    assert isinstance(policy, ClonedPolicy)
    error, nats = score_clone(policy, test.rows(test.targets.action_valid))
    return {"error": error, "nats": nats, "agent": _weights_of_clone(config.out)}


def _play(
    plan: Plan, training: Training, distractor: DistractorKind, cloning: Mapping[str, Any], on_progress: OnProgress
) -> tuple[float, ...]:
    environment, _, steps, _ = plan.clone_play
    assert environment is not None
    made_with = {**cloning, "environment": environment, "steps": steps, "episodes": plan.protocol.episodes}

    def make() -> Any:
        config, stage = training.config, f"playing under {distractor}"
        how = EvaluationConfig(
            "imitate", plan.protocol.episodes, PLAYED_FROM, steps, distractor=distractor, device=config.device
        )

        def tell(done: int, total: int) -> None:
            on_progress(stage, done, total, {})

        return list(evaluate_agent(config.out, environment, how, on_progress=tell).returns)

    return tuple(_kept(training.config.out, f"returns-{distractor}", made_with, make))


def _file(run: Path, name: str) -> Path:
    return run / DIRECTORY / f"{name}.json"


def _content(run: Path, name: str) -> dict[str, Any]:
    """Content of a measurement's file; empty if there is none, or it is damaged."""
    try:
        content = json.loads(_file(run, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _kept(run: Path, name: str, made_with: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The cached measurement if its settings are the same, otherwise a new one."""
    path, wanted, content = _file(run, name), json.loads(json.dumps(made_with)), _content(run, name)
    if content.get("made_with") == wanted and "found" in content:
        return content["found"]
    text = json.dumps({"made_with": wanted, "found": make()}, indent=1)
    write_atomically(path, text.encode())
    return json.loads(text)["found"]
