"""Agents on disk, in the run whose world model they act with.

RUN/agents/NAME/config.yaml         kind, and the sizes of its networks
RUN/agents/NAME/agent.safetensors   their weights
RUN/agents/NAME/manifest.json       what it learned from, by content, and its run's manifest: see `aime.data.manifest`
RUN/agents/NAME/log.jsonl           how it learned, one JSON object a line
RUN/agents/NAME/SHA256SUMS          of config, weights and manifest, compared when they are read
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from aime.agents.policy import ClonedPolicy, Critic, Policy, PolicyConfig
from aime.data.manifest import MANIFEST, Manifest
from aime.errors import AimeError
from aime.primitives.checksums import check_sums, write_sums
from aime.primitives.config_io import from_plain, read_yaml, to_plain, to_yaml
from aime.primitives.files import replace_directory, staging, sync_directory, unwritable, write_atomically
from aime.world_model.bundled import locate
from aime.world_model.model import AIME
from aime.world_model.saved import build_for, fill, read_tensors, require_finite, save_weights

Kind = Literal["imitate", "imagine"]

LOG = "log.jsonl"
WEIGHTS = "agent.safetensors"
_CONFIG = "config.yaml"


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


def save_agent(
    directory: Path,
    info: AgentInfo,
    networks: Networks,
    lines: Sequence[Mapping[str, float]] = (),
    manifest: Manifest | None = None,
) -> None:
    """Write an agent; one that is there is replaced as a whole.

    Args:
        directory: of the agent.
        info: what it is.
        networks: what it has learned.
        lines: of its log.
        manifest: of what it learned from; None where that is not known.

    Raises:
        AimeError: if the directory cannot be written.
    """
    with staging(directory) as new:
        write_atomically(new / _CONFIG, to_yaml(to_plain(info)).encode())
        save_weights(networks.state_dict(), new / WEIGHTS)
        write_atomically(new / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())
        if manifest is not None:
            manifest.write(new / MANIFEST)
        write_sums(new, [_CONFIG, WEIGHTS, *([] if manifest is None else [MANIFEST])])
        sync_directory(new)
        try:
            replace_directory(new, directory)
        except OSError as error:
            raise unwritable(directory, error) from error


def load_agent(run: str | Path, name: str, model: AIME) -> tuple[AgentInfo, Networks]:
    """An agent of a run, in eval mode on the model's device.

    Args:
        run: a run directory, or bundled:NAME.
        name: of the agent: what `aime agent imitate` and `aime agent imagine` write is called after them.
        model: of that run.

    Raises:
        AimeError: if there is no such agent, or its files are damaged, not finite or do not fit the model.
    """
    directory = agent_directory(run, name)
    if not (directory / WEIGHTS).is_file():
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
    check_sums(directory)
    info = read_agent(directory)
    networks = build_for(directory / WEIGHTS, info.policy, lambda: _networks(info, model))
    tensors = read_tensors(directory / WEIGHTS)
    fill(networks, tensors, directory / WEIGHTS)
    require_finite(tensors, directory / WEIGHTS)
    return networks.to(model.device)


def _networks(info: AgentInfo, model: AIME) -> Networks:
    sizes = model.config.belief, model.config.latent
    kind = ClonedPolicy if info.kind == "imitate" else Policy
    critic = Critic(info.policy, *sizes) if info.kind == "imagine" else None
    return Networks(kind(info.policy, *sizes, model.config.action_width), critic)
