"""From a run and a data set to an agent: what `aime agent imitate` and `aime agent imagine` do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from aime.agents.actor_critic import ActorCritic, ActorCriticConfig
from aime.agents.experience import Experience, check_rewarded, check_rewarding, open_experience, perceive
from aime.agents.imitation import ImitationConfig, imitate
from aime.agents.saved import AgentInfo, Networks, agent_directory, save_agent
from aime.data import Dataset
from aime.data.manifest import Manifest, SourceRecord
from aime.errors import AimeError
from aime.primitives.hardware import Hardware, choose_hardware, keep_freed_memory
from aime.primitives.locks import only_writer
from aime.world_model.model import AIME
from aime.world_model.saved import RunInfo, load_model, read_run

Told = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with what is being done, how far it is of how much, and the last figures."""


@dataclass(frozen=True)
class AgentResult:
    """Where an agent is, and the last figures of its learning."""

    directory: Path
    figures: Mapping[str, float]


def train_imitation(
    run: str | Path, data: str | None, config: ImitationConfig, seed: int, told: Told, name: str = "imitate"
) -> AgentResult:
    """Clone the behaviour that a data set shows, on the run's frozen representation.

    Args:
        run: a run directory.
        data: whose behaviour; None for the run's own data.
        config: how.
        seed: of the weights at first and of the batches.
        told: see `Told`.
        name: of the agent; one that is there is replaced.

    Raises:
        AimeError: if run and data do not fit together, or there is too little of it.
    """
    with _writing(run):
        return _train_imitation(run, data, config, seed, told, name)


def _train_imitation(
    run: str | Path, data: str | None, config: ImitationConfig, seed: int, told: Told, name: str
) -> AgentResult:
    torch.manual_seed(seed)
    info, model, hardware = _load(run)
    dataset = open_experience(info, data)
    experience = _perceive(model, dataset, config.frames, hardware, told)
    lines: list[dict[str, float]] = []

    def check(step: int, figures: Mapping[str, float]) -> None:
        lines.append({"step": step, **figures})
        told("cloning", step, config.steps, figures)

    cloned = imitate(model, experience, config, check)
    directory = agent_directory(run, name)
    agent, networks = AgentInfo("imitate", config.policy, dataset.name), Networks(cloned.policy, None)
    save_agent(directory, agent, networks, lines, manifest_of(info, directory, dataset.spread_episodes(config.frames)))
    figures = {"validation_error": cloned.error, "validation_action": cloned.nats, "kept_step": cloned.step}
    return AgentResult(directory, figures)


def train_imagination(
    run: str | Path,
    data: str | None,
    config: ActorCriticConfig,
    seed: int,
    told: Told,
    name: str = "imagine",
) -> AgentResult:
    """Let an actor and a critic learn in dreams that start where a data set has been.

    Args:
        run: a run directory.
        data: where dreams start; None for the run's own data.
        config: how.
        seed: of all randomness.
        told: see `Told`.
        name: of the agent; one that is there is replaced.

    Raises:
        AimeError: if run and data do not fit together, there are no rewards, or losses are not finite.
    """
    with _writing(run):
        return _train_imagination(run, data, config, seed, told, name)


def _train_imagination(
    run: str | Path, data: str | None, config: ActorCriticConfig, seed: int, told: Told, name: str
) -> AgentResult:
    torch.manual_seed(seed)
    info, model, hardware = _load(run)
    check_rewarding(info)
    model.dynamics.expect_rewards()
    dataset = open_experience(info, data)
    check_rewarded(dataset)
    experience = _perceive(model, dataset, config.frames, hardware, told)
    learner = ActorCritic(config, model.dynamics, hardware)
    lines = _begin(learner, experience, told) + _learn(learner, experience, told)
    networks = Networks(learner.policy, learner.slow_critic).eval()
    directory = agent_directory(run, name)
    manifest = manifest_of(info, directory, dataset.spread_episodes(config.frames))
    save_agent(directory, AgentInfo("imagine", config.policy, dataset.name), networks, lines, manifest)
    return AgentResult(directory, lines[-1] if lines else {})


def _begin(learner: ActorCritic, experience: Experience, told: Told) -> list[dict[str, float]]:
    config, lines = learner.config.warm_start, []

    def check(step: int, figures: Mapping[str, float]) -> None:
        lines.append({"step": step, **figures})
        of = config.critic_steps if "recorded_critic" in figures else config.policy_steps
        told("learning from the record", step, of, figures)

    learner.begin(experience, check)
    return lines


def _learn(learner: ActorCritic, experience: Experience, told: Told) -> list[dict[str, float]]:
    config, lines = learner.config, []
    for step in range(1, config.steps + 1):
        drawn = torch.randint(experience.frames, (config.starts,), device=experience.episode.device)
        learned = learner.learn(experience.states.pick(drawn))
        if step % 20 and step != config.steps:
            continue
        figures = {name: float(value) for name, value in learned._asdict().items()}
        if not all(math.isfinite(value) for value in figures.values()):
            raise AimeError(f"step {step}: found {figures}, expected finite figures: lower actor_rate and critic_rate")
        lines.append({"step": step, **figures})
        told("learning in imagination", step, config.steps, figures)
    return lines


def manifest_of(info: RunInfo, directory: Path, learned: Dataset) -> Manifest:
    """What an agent of a run learned from, itself and through the run.

    Args:
        info: the run.
        directory: of the agent.
        learned: the episodes that it perceived.
    """
    records = [SourceRecord.of(each, directory, known.digests, frozenset()) for each, known in learned.by_source]
    return Manifest(sources=tuple(records)).after(str(info.path.resolve()), info.manifest)


@contextmanager
def _writing(run: str | Path) -> Iterator[None]:
    """Keep trainers and other agents out of the run.

    Raises:
        AimeError: if another process writes there, there is no run, or it is none that can be written to.
    """
    if str(run).startswith("bundled:"):
        raise AimeError(
            f"{run}: comes with the package, and agents are kept in their runs; expected a run of your own: start one "
            f"from it by `aime train tiny --data DIR --out RUN --init-from {run}`"
        )
    read_run(run)
    with only_writer(Path(run)):
        yield


def _load(run: str | Path) -> tuple[RunInfo, AIME, Hardware]:
    keep_freed_memory()
    hardware = choose_hardware()
    return read_run(run), load_model(run).to(hardware.device).requires_grad_(False), hardware


def _perceive(model: AIME, dataset: Dataset, frames: int, hardware: Hardware, told: Told) -> Experience:
    return perceive(model, dataset, frames, hardware, lambda done, total: told("perceiving", done, total, {}))
