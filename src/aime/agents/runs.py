"""From a run and a data set to an agent: `aime agent imitate` and `aime agent imagine`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from aime.agents.actor_critic import ActorCritic, ActorCriticConfig
from aime.agents.experience import OnProgress, perceive
from aime.agents.imitation import ImitationConfig, imitate
from aime.agents.saved import AgentInfo, Kind, Networks, agent_directory, save_agent
from aime.data import Dataset
from aime.data.manifest import Manifest, SourceRecord
from aime.data.sources import is_bundled
from aime.errors import AimeError
from aime.inference.learned_data import open_experience, open_rewarded
from aime.primitives.hardware import Hardware, choose_hardware, keep_freed_memory
from aime.primitives.locks import only_writer
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo, read_run

LOG_EVERY = 20
"""Steps in imagination from one line of the log to the next."""


class _Log:
    """An `OnProgress` that keeps the figures."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        self.lines: list[dict[str, float]] = []

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if figures:
            self.lines.append({"step": done, **figures})
        self.on_progress(stage, done, total, figures)


def train_imitation(
    run: str | Path, data: str | None, config: ImitationConfig, seed: int, on_progress: OnProgress
) -> tuple[Path, Mapping[str, float]]:
    """Clone the behaviour of a data set, by default the run's own; returns the agent's directory and its scores.

    Raises:
        AimeError: if run and data do not fit together, or there is too little data.
    """
    log = _Log(on_progress)
    with _opened(run, seed) as (info, model, hardware):
        dataset = open_experience(info, data)
        experience = perceive(model, dataset, config.frames, hardware, log)
        cloned = imitate(model.dynamics.widths, experience, config, log)
        directory = _save(info, "imitate", config, dataset, Networks(cloned.policy, None), log)
    figures = {"validation_error": cloned.error, "validation_action": cloned.nats, "kept_step": cloned.step}
    return directory, figures


def train_imagination(
    run: str | Path, data: str | None, config: ActorCriticConfig, seed: int, on_progress: OnProgress
) -> tuple[Path, Mapping[str, float]]:
    """Let an actor and a critic learn in dreams from states of a data set, by default the run's own.

    Returns the agent's directory and the last figures of the log.

    Raises:
        AimeError: if run and data do not fit together, there are no rewards, or losses are not finite.
    """
    log = _Log(on_progress)
    with _opened(run, seed) as (info, model, hardware):
        dataset = open_rewarded(info, data)
        model.dynamics.expect_rewards()
        experience = perceive(model, dataset, config.frames, hardware, log)
        learner = ActorCritic(config, model.dynamics, hardware)
        learner.warm_start(experience, log)
        for step in range(1, config.steps + 1):
            drawn = torch.randint(experience.frames, (config.starts,), device=experience.episode.device)
            learned = learner.learn(experience.states.pick(drawn))
            if step % LOG_EVERY == 0 or step == config.steps:
                figures = {name: float(value) for name, value in learned.items()}
                if not all(map(math.isfinite, figures.values())):
                    raise AimeError(f"step {step}: found {figures}, expected finite figures: lower the learning rates")
                log("learning in imagination", step, config.steps, figures)
        networks = Networks(learner.policy, learner.slow_critic).eval()
        directory = _save(info, "imagine", config, dataset, networks, log)
    return directory, log.lines[-1] if log.lines else {}


def _save(
    info: RunInfo, kind: Kind, config: ImitationConfig | ActorCriticConfig, data: Dataset, networks: Networks, log: _Log
) -> Path:
    """Write an agent of a run; returns its directory."""
    directory, learned = agent_directory(info.path, kind), data.spread_episodes(config.frames)
    records = [SourceRecord.of(each, directory, known.digests, frozenset()) for each, known in learned.by_source]
    manifest = Manifest(sources=tuple(records)).after(str(info.path.resolve()), info.manifest)
    save_agent(directory, AgentInfo(kind, config.policy, data.name), networks, manifest, log.lines)
    return directory


@contextmanager
def _opened(run: str | Path, seed: int) -> Iterator[tuple[RunInfo, AIME, Hardware]]:
    """A run, its frozen model and the hardware, with seeded randomness, while no other process writes to the run."""
    if is_bundled(run):
        raise AimeError(
            f"{run}: comes with the package, and agents are kept in their runs; expected a run of your own: start one "
            f"from it by `aime train tiny --data DIR --out RUN --init-from {run}`"
        )
    info = read_run(run)
    with only_writer(Path(run)):
        torch.manual_seed(seed)
        keep_freed_memory()
        hardware = choose_hardware()
        yield info, AIME.from_pretrained(run).to(hardware.device).requires_grad_(False), hardware
