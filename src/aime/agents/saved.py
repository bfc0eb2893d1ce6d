"""Agents on disk, in the run whose world model they act with.

RUN/agents/NAME/config.yaml         kind, and the sizes of its networks
RUN/agents/NAME/agent.safetensors   their weights
RUN/agents/NAME/manifest.json       what it and its run learned from, by content: see `aime.data.manifest`
RUN/agents/NAME/log.jsonl           how it learned, one JSON object a line
RUN/agents/NAME/SHA256SUMS          of config, weights and manifest, verified by `load_agent`
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
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.errors import AimeError
from aime.primitives.checksums import check_sums, write_sums
from aime.primitives.config_io import from_plain, read_yaml, to_plain, to_yaml
from aime.primitives.files import replace_directory, staging, sync_directory, unwritable, write_atomically
from aime.primitives.tensor_files import build_for, fill, require_finite, save_weights
from aime.world_model.bundled import locate
from aime.world_model.saved import read_weights

Kind = Literal["imitate", "imagine"]
"""An agent is named after the action of `aime agent` that trains it."""

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
    """An agent's policy, and its critic if it learned in imagination."""

    def __init__(self, policy: Policy | ClonedPolicy, critic: Critic | None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


def agent_directory(run: str | Path, name: str) -> Path:
    """Where an agent of a run, a directory or bundled:NAME, is kept."""
    return locate(run) / "agents" / name


def save_agent(
    directory: Path, info: AgentInfo, networks: Networks, manifest: Manifest, lines: Sequence[Mapping[str, float]] = ()
) -> None:
    """Write an agent with its manifest and the lines of its log; one that is there is replaced as a whole.

    Raises:
        AimeError: if the directory cannot be written.
    """
    with staging(directory) as new:
        write_atomically(new / _CONFIG, to_yaml(to_plain(info)).encode())
        save_weights(networks.state_dict(), new / WEIGHTS)
        write_atomically(new / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        manifest.write(new / MANIFEST)
        write_sums(new, [_CONFIG, WEIGHTS, MANIFEST])
        sync_directory(new)
        try:
            replace_directory(new, directory)
        except OSError as error:
            raise unwritable(directory, error) from error


def load_agent(run: str | Path, name: str, dynamics: LatentDynamics) -> Networks:
    """The networks of an agent, in eval mode on the device of the run's dynamics; the run is a path or bundled:NAME.

    Raises:
        AimeError: if there is no such agent, or its files are damaged, not finite or do not fit the dynamics.
    """
    directory = agent_directory(run, name)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise AimeError(f"{directory}: no agent there; expected what `aime agent {name} {run}` writes: run it first")
    check_sums(directory)
    info = from_plain(AgentInfo, read_yaml(directory / _CONFIG), str(directory / _CONFIG))
    networks = build_for(weights, info.policy, lambda: _networks(info, dynamics))
    tensors = read_weights(weights)
    fill(networks, tensors, weights)
    require_finite(tensors, weights)
    return networks.to(dynamics.device).eval().requires_grad_(False)


def _networks(info: AgentInfo, dynamics: LatentDynamics) -> Networks:
    if info.kind == "imitate":
        return Networks(ClonedPolicy(info.policy, dynamics.widths), None)
    return Networks(Policy(info.policy, dynamics.widths), Critic(info.policy, dynamics.widths))
