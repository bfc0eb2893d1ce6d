"""Agents on disk, in the run whose world model they act with.

RUN/agents/NAME/config.yaml         kind, and the sizes of its networks
RUN/agents/NAME/agent.safetensors   their weights
RUN/agents/NAME/log.jsonl           how it learned, one JSON object a line
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from aime.control.policy import ClonedPolicy, Critic, Policy, PolicyConfig
from aime.errors import AimeError
from aime.primitives.files import write_atomically
from aime.primitives.plain import from_plain, read_yaml, to_plain, to_yaml
from aime.world_model.bundled import locate
from aime.world_model.model import AIME
from aime.world_model.saved import fill, read_tensors, save_weights

Kind = Literal["imitate", "imagine"]

_CONFIG, _WEIGHTS = "config.yaml", "agent.safetensors"


@dataclass(frozen=True)
class AgentInfo:
    """What an agent's directory says about it."""

    kind: Kind
    policy: PolicyConfig
    data: str
    """What it learned from, as `open_dataset` takes it."""


class Networks(nn.Module):
    """What an agent has learned: a policy, and a critic where it learned in imagination."""

    def __init__(self, policy: Policy | ClonedPolicy, critic: Critic | None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


def agent_directory(run: str | Path, name: str) -> Path:
    """Where an agent of a run, a directory or bundled:NAME, is kept."""
    return locate(run) / "agents" / name


def save_agent(directory: Path, info: AgentInfo, networks: Networks) -> None:
    """Write an agent; one that is there is replaced, the weights last.

    Raises:
        AimeError: if the directory cannot be written.
    """
    write_atomically(directory / _CONFIG, to_yaml(to_plain(info)).encode())
    save_weights(networks.state_dict(), directory / _WEIGHTS)


def load_agent(run: str | Path, name: str, model: AIME) -> tuple[AgentInfo, Networks]:
    """An agent of a run, in eval mode on the model's device.

    Args:
        run: a run directory, or bundled:NAME.
        name: of the agent: what `aime agent imitate` and `aime agent imagine` write is called after them.
        model: of that run.

    Raises:
        AimeError: if there is no such agent, or its files do not fit the model.
    """
    directory = agent_directory(run, name)
    if not (directory / _WEIGHTS).is_file():
        raise AimeError(f"{directory}: no agent there; expected what `aime agent {name} {run}` writes: run it first")
    networks = load_networks(directory, model)
    return read_agent(directory), networks.eval().requires_grad_(False)


def read_agent(directory: Path) -> AgentInfo:
    """What an agent's directory says about it.

    Raises:
        AimeError: if there is none, or it does not fit this version of aime.
    """
    return from_plain(AgentInfo, read_yaml(directory / _CONFIG), str(directory / _CONFIG))


def load_networks(directory: Path, model: AIME) -> Networks:
    """An agent's networks on the model's device.

    Raises:
        AimeError: if files are missing or do not fit the model.
    """
    info = read_agent(directory)
    sizes = model.config.belief, model.config.latent
    kind = ClonedPolicy if info.kind == "imitate" else Policy
    critic = Critic(info.policy, *sizes) if info.kind == "imagine" else None
    networks = Networks(kind(info.policy, *sizes, model.config.action_width), critic)
    fill(networks, read_tensors(directory / _WEIGHTS), directory / _WEIGHTS)
    return networks.to(model.device)
