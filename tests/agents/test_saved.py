from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models import small_config

from aime.agents.policy import ClonedPolicy, Critic, Policy, PolicyConfig
from aime.agents.saved import AgentInfo, Kind, Networks, agent_directory, load_agent, save_agent
from aime.data.manifest import Manifest, read_manifest
from aime.dynamics.states import Widths
from aime.errors import AimeError
from aime.world_model.model import AIME

SMALL = PolicyConfig(hidden=16, bins=11, components=2)
WIDTHS = Widths(latent=6, context=8, action=2, belief=16)


def networks(kind: Kind) -> Networks:
    if kind == "imitate":
        return Networks(ClonedPolicy(SMALL, WIDTHS), None)
    return Networks(Policy(SMALL, WIDTHS), Critic(SMALL, WIDTHS))


@pytest.mark.parametrize("kind", ["imitate", "imagine"])
def test_an_agent_comes_back_as_it_was(tmp_path: Path, kind: Kind) -> None:
    dynamics, saved = AIME(small_config()).dynamics, networks(kind)
    if saved.critic is not None:
        saved.critic.largest.fill_(7.0)
    save_agent(agent_directory(tmp_path, "mine"), AgentInfo(kind, SMALL, "bundled:cartpole"), saved, Manifest())
    loaded = load_agent(tmp_path, "mine", dynamics)
    assert type(loaded.policy) is type(saved.policy)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())
    read = torch.randn(3, 16), torch.randn(3, 6), torch.randn(3, 6)
    torch.testing.assert_close(loaded.policy(*read).mode, saved.eval().policy(*read).mode)


def test_a_missing_agent_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match=r"no agent there; expected what `aime agent imagine .*` writes: run it first"):
        load_agent(tmp_path, "imagine", AIME(small_config()).dynamics)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save_agent(
        agent_directory(tmp_path, "mine"), AgentInfo("imitate", PolicyConfig(), "data"), networks("imitate"), Manifest()
    )
    with pytest.raises(AimeError, match="expected"):
        load_agent(tmp_path, "mine", AIME(small_config()).dynamics)


@pytest.mark.parametrize("file", ["agent.safetensors", "config.yaml"])
def test_a_bit_that_flips_is_found(tmp_path: Path, file: str) -> None:
    directory = agent_directory(tmp_path, "mine")
    save_agent(directory, AgentInfo("imitate", SMALL, "data"), networks("imitate"), Manifest())
    content = bytearray((directory / file).read_bytes())
    content[-9] ^= 4
    (directory / file).write_bytes(content)
    with pytest.raises(AimeError, match=rf"{file}: damaged"):
        load_agent(tmp_path, "mine", AIME(small_config()).dynamics)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = networks("imitate")
    next(broken.parameters()).data.fill_(torch.inf)
    save_agent(agent_directory(tmp_path, "mine"), AgentInfo("imitate", SMALL, "data"), broken, Manifest())
    with pytest.raises(AimeError, match=r"agent.safetensors: tensor .* found NaN or infinity"):
        load_agent(tmp_path, "mine", AIME(small_config()).dynamics)


def test_its_manifest_is_kept_with_it(tmp_path: Path) -> None:
    dynamics, manifest = AIME(small_config()).dynamics, Manifest().after("run", None)
    directory = agent_directory(tmp_path, "mine")
    save_agent(directory, AgentInfo("imitate", SMALL, "data"), networks("imitate"), manifest)
    load_agent(tmp_path, "mine", dynamics)
    assert read_manifest(directory / "manifest.json") == manifest
