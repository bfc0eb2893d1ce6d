"""An actor and a critic that learn in imagination: no frame is seen or drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from aime.agents.descent import descend
from aime.agents.experience import Experience
from aime.agents.policy import Critic, Policy, PolicyConfig
from aime.agents.recorded import largest_return
from aime.agents.returns import AdvantageScale, lambda_returns
from aime.agents.warm_start import Told, WarmStartConfig, clone_what_paid, follow_the_record
from aime.dynamics.choices import likeliest, sampled
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry
from aime.errors import AimeError, expect_at_least_zero, expect_positive
from aime.primitives.distributions import CensoredGaussian
from aime.primitives.hardware import Hardware


@dataclass(frozen=True)
class ActorCriticConfig:
    """How actor and critic learn.

    Raises:
        AimeError: if a number is out of its range.
    """

    steps: int = 450
    """Of dreaming; at 0 the agent is what it begins as. Offline, many more let the critic believe its own hopes."""
    starts: int = 384
    """Imagined paths a step, from frames drawn from the data."""
    horizon: int = 5
    """Steps of each path: a model tells better actions from worse ones for a few steps, and the critic the rest."""
    future: Literal["likeliest", "sampled"] = "likeliest"
    """Which latents come: the mean of the likeliest component, or a sample. Actions are sampled in either."""
    discount: float = 0.99
    trace: float = 0.8
    """λ of the returns."""
    entropy: float = 3e-4
    """Weight of the policy's entropy, beside advantages of order one."""
    divergence: float = 0.1
    """Weight of KL(π ‖ ρ), which holds the policy to what the data shows; 0 where it collects its own. ρ is the policy
    that the agent began as, where the record taught it one, else the action schema."""
    samples: int = 4
    """Actions a state by which that divergence is estimated."""
    actor_rate: float = 3e-4
    """Of AdamW; it falls evenly to 0 over the steps."""
    critic_rate: float = 1e-3
    clip: float = 100.0
    """Largest norm of each network's gradient."""
    slow: float = 0.02
    """Share of the critic that its slow copy takes over at each step."""
    frames: int = 65536
    """The most frames to start from."""
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    """What is learned from the record before any dream."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        expect_positive(self, "starts", "horizon", "actor_rate", "critic_rate", "clip", "frames")
        for name in ("discount", "trace", "slow"):
            if not 0 < getattr(self, name) <= 1:
                raise AimeError(f"{name} is {getattr(self, name)}; expected more than 0 and at most 1")
        expect_at_least_zero(self, "steps", "entropy", "divergence")
        if self.samples < 2:
            raise AimeError(f"samples is {self.samples}; expected 2 or more: each is judged beside the others")


class Path(NamedTuple):
    """N imagined paths of H steps."""

    beliefs: Float[Tensor, "H_and_1 N belief"]
    latents: Float[Tensor, "H_and_1 N latent"]
    steps: Float[Tensor, "H_and_1 N latent"]
    actions: Float[Tensor, "H N A"]

    @property
    def acted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the actions were taken: beliefs, latents and steps `[H,N,·]`."""
        return self.beliefs[:-1], self.latents[:-1], self.steps[:-1]

    @property
    def arrived(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where they led, likewise."""
        return self.beliefs[1:], self.latents[1:], self.steps[1:]


class Learned(NamedTuple):
    """Scalars of one step, for the log."""

    actor: Float[Tensor, ""]
    critic: Float[Tensor, ""]
    """-log p of the returns under the critic, in nats."""
    imagined_return: Float[Tensor, ""]
    """Mean λ-return of the paths' starts, in the environment's units."""
    imagined_reward: Float[Tensor, ""]
    """Mean reward of a step."""
    scale: Float[Tensor, ""]
    """By which advantages are divided, in the environment's units."""
    entropy: Float[Tensor, ""]
    """Of the policy, in nats."""
    divergence: Float[Tensor, ""]
    """KL(π ‖ ρ), in nats; 0 where it is not asked for."""


class ActorCritic(nn.Module):
    """A policy and a critic, and the step that teaches both on paths that start where the data has been.

    The policy follows the score-function gradient of scaled advantages, with an entropy bonus; trained on what others
    recorded it is also held to what they did, or to the part of it that paid, since a world model errs where nobody has
    been.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, equations 4 to 7; the divergence: Wu et al. 2019,
    "Behavior regularized offline reinforcement learning", arXiv 1911.11361.
    """

    def __init__(self, config: ActorCriticConfig, dynamics: LatentDynamics, hardware: Hardware) -> None:
        """Nothing is learned yet.

        Args:
            config: how.
            dynamics: with reward heads, in eval mode; it is never changed.
            hardware: where, and how precisely paths are imagined.

        Raises:
            AimeError: if the model has no reward head, or one that never saw a reward.
        """
        control = dynamics.expect_rewards()
        super().__init__()
        self.config, self.hardware = config, hardware
        self._world = dynamics, control  # no submodules: their weights are the run's
        sizes = dynamics.widths.belief, dynamics.widths.latent
        self.policy = Policy(config.policy, *sizes, dynamics.widths.action)
        self.critic = Critic(config.policy, *sizes)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.scale = AdvantageScale()
        self._began_as: Policy | None = None
        self.to(hardware.device)
        self._actor_optimizer = torch.optim.AdamW(self.policy.parameters(), config.actor_rate, weight_decay=0.0)
        self._actor_schedule = LinearLR(self._actor_optimizer, 1.0, 0.0, max(1, config.steps))
        self._critic_optimizer = torch.optim.AdamW(self.critic.parameters(), config.critic_rate, weight_decay=0.0)

    @property
    def dynamics(self) -> LatentDynamics:
        """The latent dynamics whose dreams these are."""
        return self._world[0]

    def begin(self, experience: Experience, told: Told) -> None:
        """Learn from the record what is worth how much, and to do what paid; see `WarmStartConfig`.

        How large returns can be is learned from it in any case.
        """
        config, discount = self.config.warm_start, self.config.discount
        for critic in (self.critic, self.slow_critic):
            critic.largest.fill_(largest_return(experience, discount))
        if config.critic_steps:
            follow_the_record(self.critic, experience, config, discount, told)
            clone_what_paid(self.policy, self.critic, experience, config, discount, told)
            self.slow_critic.load_state_dict(self.critic.state_dict())
            if config.policy_steps and bool(experience.targets.action_valid.any()):
                self._began_as = copy.deepcopy(self.policy).requires_grad_(False)

    def learn(self, start: Carry) -> Learned:
        """One step on paths from N states."""
        _, control = self._world
        path = self.imagine(start)
        with torch.no_grad(), self.hardware.autocast():
            rewards = control.reward(*path.arrived).mean
            continues = control.continuation(*path.arrived).sigmoid()
            values = self.slow_critic(path.beliefs, path.latents, path.steps).mean
        returns = lambda_returns(rewards, continues, values[1:], self.config.discount, self.config.trace)
        reached = torch.cat([torch.ones_like(continues[:1]), self.config.discount * continues[:-1]]).cumprod(0)
        advantages = returns - values[:-1]
        scale = self.scale(advantages)
        actor, entropy, divergence = self._actor_loss(path, advantages / scale, reached)
        descend(self._actor_optimizer, actor, self.config.clip)
        self._actor_schedule.step()
        critic = self._critic_loss(path, returns, reached)
        descend(self._critic_optimizer, critic, self.config.clip)
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.data.lerp_(fast.data, self.config.slow)
        told = actor, critic, returns[0].mean(), rewards.mean(), scale, entropy, divergence
        return Learned(*(each.detach() for each in told))

    @torch.no_grad()
    def imagine(self, start: Carry) -> Path:
        """H steps from N states, under sampled actions and into the latents that `config.future` says."""

        def act(carry: Carry, number: int) -> Tensor:
            return self.policy(*carry.read).sample()

        choose = likeliest if self.config.future == "likeliest" else sampled
        with self.hardware.autocast():
            dream = self.dynamics.behave(start, act, self.config.horizon, choose)
        beliefs, latents, steps = (
            torch.cat([first[None], rearrange(after, "n h d -> h n d")]).float()
            for first, after in zip(start.read, dream.read, strict=True)
        )
        return Path(beliefs, latents, steps, rearrange(dream.actions, "n h a -> h n a"))

    def _actor_loss(
        self, path: Path, advantages: Float[Tensor, "H N"], reached: Float[Tensor, "H N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        policy = self.policy(*path.acted)
        entropy = policy.entropy()
        gain = advantages.detach() * policy.log_prob(path.actions) + self.config.entropy * entropy
        divergence = torch.zeros(())
        if self.config.divergence:
            held, divergence = self._divergence(policy, path)
            gain = gain - self.config.divergence * held
        return -(reached * gain).mean(), entropy.mean(), divergence

    def _divergence(self, policy: CensoredGaussian, path: Path) -> tuple[Float[Tensor, "H N"], Float[Tensor, ""]]:
        """What has the gradient of KL(π ‖ ρ), and the divergence itself.

        ∇ KL = E_π [(log π(a) - log ρ(a)) ∇ log π(a)]; each action is judged beside the mean of the other ones.
        """
        _, control = self._world
        behave = self._began_as or control.action_schema
        with torch.no_grad():
            behaviour = behave(*path.acted)
            actions = torch.stack([policy.sample() for _ in range(self.config.samples)])
        log_prob = policy.log_prob(actions)
        ratio = (log_prob - behaviour.log_prob(actions)).detach()
        others = (ratio.sum(0) - ratio) / (self.config.samples - 1)
        return ((ratio - others) * log_prob).mean(0), ratio.mean()

    def _critic_loss(
        self, path: Path, returns: Float[Tensor, "H N"], reached: Float[Tensor, "H N"]
    ) -> Float[Tensor, ""]:
        return -(reached * self.critic(*path.acted).log_prob(returns)).mean()
