"""An actor and a critic that learn in imagination: no frame is observed or drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR

from aime.agents.experience import Experience, OnProgress
from aime.agents.imitation import descend
from aime.agents.policy import Behaviour, Critic, Policy, PolicyConfig
from aime.agents.returns import AdvantageScale, lambda_returns, largest_return
from aime.agents.warm_start import WarmStartConfig, clone_better_actions, fit_critic
from aime.dynamics.choices import likeliest
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.states import Carry
from aime.errors import AimeError, expect_at_least_zero, expect_positive
from aime.primitives.distributions import CensoredGaussian
from aime.primitives.hardware import Hardware


@dataclass(frozen=True)
class ActorCriticConfig:
    """How actor and critic learn."""

    steps: int = 450
    """Optimizer steps in imagination; 0 stops after the warm start. With many more the critic overestimates returns."""
    starts: int = 384
    """Imagined trajectories per step, from random frames of the data."""
    horizon: int = 5
    """Steps of each trajectory; the critic estimates the return after them."""
    discount: float = 0.99
    """Discount factor γ of rewards per step."""
    trace: float = 0.8
    """λ of the λ-returns."""
    entropy: float = 3e-4
    """Weight of the policy's entropy; advantages are of order one."""
    divergence: float = 0.1
    """Weight of KL(π ‖ ρ), which keeps the policy near the data. ρ is the policy of the warm start."""
    samples: int = 4
    """Sampled actions per state to estimate the divergence."""
    actor_rate: float = 3e-4
    """Learning rate of the actor. It falls linearly to 0 over the steps."""
    critic_rate: float = 1e-3
    """Learning rate of the critic."""
    clip: float = 100.0
    """Maximum norm of each network's gradient."""
    slow: float = 0.02
    """Update rate of the slow critic, a moving average that estimates the values."""
    frames: int = 65536
    """Maximum number of frames to start from."""
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    """What is learned from recorded data before imagination."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    future: ClassVar[str] = "likeliest"
    """Sampled latents tell actions apart less well."""

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        expect_positive(self, "starts", "horizon", "actor_rate", "critic_rate", "clip", "frames")
        for name in ("discount", "trace", "slow"):
            if not 0 < getattr(self, name) <= 1:
                raise AimeError(f"{name} is {getattr(self, name)}; expected more than 0 and at most 1")
        expect_at_least_zero(self, "steps", "entropy", "divergence")
        if self.samples < 2:
            raise AimeError(f"samples is {self.samples}; expected 2 or more: each is compared with the others")


class ImaginedTrajectory(NamedTuple):
    """N imagined trajectories of H steps: where actions were taken (departures), and where they led (arrivals)."""

    beliefs: Float[Tensor, "H_and_1 N belief"]
    latents: Float[Tensor, "H_and_1 N latent"]
    steps: Float[Tensor, "H_and_1 N latent"]
    actions: Float[Tensor, "H N A"]

    @property
    def departures(self) -> tuple[Tensor, Tensor, Tensor]:
        """`[H,N,·]`."""
        return self.beliefs[:-1], self.latents[:-1], self.steps[:-1]

    @property
    def arrivals(self) -> tuple[Tensor, Tensor, Tensor]:
        """`[H,N,·]`."""
        return self.beliefs[1:], self.latents[1:], self.steps[1:]


class ActorCritic:
    """A policy and a critic, and the step that trains both on imagined trajectories from recorded states.

    The policy follows the score-function gradient of scaled advantages, with an entropy bonus. It is kept near ρ, since
    the world model errs where no data is.
    Reference: Hafner et al. 2023, DreamerV3, arXiv 2301.04104, equations 4 to 7; the divergence: Wu et al. 2019,
    "Behavior regularized offline reinforcement learning", arXiv 1911.11361.
    """

    def __init__(self, config: ActorCriticConfig, dynamics: LatentDynamics, hardware: Hardware) -> None:
        """Untrained networks, for dynamics with reward heads, in eval mode, which are never changed.

        Raises:
            AimeError: if the model has no reward head, or one that never saw a reward.
        """
        self.config, self.hardware = config, hardware
        self.dynamics, self.control = dynamics, dynamics.expect_rewards()
        self.policy = Policy(config.policy, dynamics.widths).to(hardware.device)
        self.critic = Critic(config.policy, dynamics.widths).to(hardware.device)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.scale = AdvantageScale()
        self.reference: Behaviour = self.control.action_schema
        """ρ of the divergence."""
        self._actor_optimizer = torch.optim.AdamW(self.policy.parameters(), config.actor_rate, weight_decay=0.0)
        self._actor_schedule = LinearLR(self._actor_optimizer, 1.0, 0.0, max(1, config.steps))
        self._critic_optimizer = torch.optim.AdamW(self.critic.parameters(), config.critic_rate, weight_decay=0.0)

    def warm_start(self, experience: Experience, on_progress: OnProgress) -> None:
        """Learn the range of returns from recorded data, then critic and policy: see `WarmStartConfig`."""
        config, discount = self.config.warm_start, self.config.discount
        for critic in (self.critic, self.slow_critic):
            critic.largest.fill_(largest_return(experience, discount))
        if config.critic_steps:
            fit_critic(self.critic, experience, config, discount, on_progress)
            clone_better_actions(self.policy, self.critic, experience, config, discount, on_progress)
            self.slow_critic.load_state_dict(self.critic.state_dict())
            if config.policy_steps and bool(experience.targets.action_valid.any()):
                self.reference = copy.deepcopy(self.policy).requires_grad_(False)

    def learn(self, start: Carry) -> dict[str, Float[Tensor, ""]]:
        """One step on trajectories from N states; scalars for the log.

        `critic` is -log p of the returns in nats, `imagined_return` the mean λ-return of the first states,
        `imagined_reward` the mean reward of a step, `scale` the divisor of the advantages.
        """
        trajectory = self.imagine(start)
        with torch.no_grad(), self.hardware.autocast():
            rewards = self.control.reward(*trajectory.arrivals).mean
            continues = self.control.continuation(*trajectory.arrivals).sigmoid()
            values = self.slow_critic(trajectory.beliefs, trajectory.latents, trajectory.steps).mean
        returns = lambda_returns(rewards, continues, values[1:], self.config.discount, self.config.trace)
        reached = torch.cat([torch.ones_like(continues[:1]), self.config.discount * continues[:-1]]).cumprod(0)
        advantages = returns - values[:-1]
        scale = self.scale(advantages)
        actor, entropy, divergence = self._actor_loss(trajectory, advantages / scale, reached)
        descend(self._actor_optimizer, actor, self.config.clip)
        self._actor_schedule.step()
        critic = -(reached * self.critic(*trajectory.departures).log_prob(returns)).mean()
        descend(self._critic_optimizer, critic, self.config.clip)
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.data.lerp_(fast.data, self.config.slow)
        figures = {"actor": actor, "critic": critic, "imagined_return": returns[0].mean()}
        figures |= {"imagined_reward": rewards.mean(), "scale": scale, "entropy": entropy, "divergence": divergence}
        return {name: each.detach() for name, each in figures.items()}

    @torch.no_grad()
    def imagine(self, start: Carry) -> ImaginedTrajectory:
        """H steps from N states, under sampled actions and along the likeliest latents."""

        def act(carry: Carry, number: int) -> Tensor:
            return self.policy(*carry.read).sample()

        with self.hardware.autocast():
            dream = self.dynamics.behave(start, act, self.config.horizon, likeliest)
        beliefs, latents, steps = (
            torch.cat([first[None], rearrange(after, "n h d -> h n d")]).float()
            for first, after in zip(start.read, dream.read, strict=True)
        )
        return ImaginedTrajectory(beliefs, latents, steps, rearrange(dream.actions, "n h a -> h n a"))

    def _actor_loss(
        self, trajectory: ImaginedTrajectory, advantages: Float[Tensor, "H N"], reached: Float[Tensor, "H N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss, the entropy and the divergence."""
        policy = self.policy(*trajectory.departures)
        entropy = policy.entropy()
        gain = advantages.detach() * policy.log_prob(trajectory.actions) + self.config.entropy * entropy
        divergence = torch.zeros(())
        if self.config.divergence:
            penalty, divergence = self._divergence(policy, trajectory)
            gain = gain - self.config.divergence * penalty
        return -(reached * gain).mean(), entropy.mean(), divergence

    def _divergence(
        self, policy: CensoredGaussian, trajectory: ImaginedTrajectory
    ) -> tuple[Float[Tensor, "H N"], Float[Tensor, ""]]:
        """A term with the gradient of KL(π ‖ ρ), and the divergence itself.

        ∇ KL = E_π [(log π(a) - log ρ(a)) ∇ log π(a)]; the mean of the other samples is each one's baseline.
        """
        with torch.no_grad():
            reference = self.reference(*trajectory.departures)
            actions = torch.stack([policy.sample() for _ in range(self.config.samples)])
        log_prob = policy.log_prob(actions)
        ratio = (log_prob - reference.log_prob(actions)).detach()
        others = (ratio.sum(0) - ratio) / (self.config.samples - 1)
        return ((ratio - others) * log_prob).mean(0), ratio.mean()
