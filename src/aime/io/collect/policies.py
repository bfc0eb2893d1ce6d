"""Policies of recordings: noise, scripted controllers, and mixtures of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, Float64

Policy = Literal["random", "smooth", "medium", "expert", "mixed"]

Sequence = Literal["random", "smooth"]

SKILLED: tuple[Policy, ...] = ("medium", "expert", "mixed")
"""Policies that need a controller."""

Act = Callable[[int], Float32[np.ndarray, " A"]]
"""The action `[A]` in [-1, 1] of a step; called once per step, in order, after the arrival."""


class Controlled(Protocol):
    """The part of an environment that policies use."""

    action_width: int

    def control(self) -> Float64[np.ndarray, " A"]:
        """The action of the task's controller."""


AMPLITUDE = (0.4, 2.0)
"""Range of the smooth policy's standard deviation before clipping."""

TIME_SCALE = (1.5, 12.0)
"""Range of the smooth policy's correlation time in steps; a pole of 1 m swings once in about 40 steps of 0.04 s."""

DAMPING, STIFFNESS = 0.12, 0.006
"""Spring and damper against drift: an oscillator with a period of 2π/√0.006 = 81 steps, nearly critically damped."""


def random_actions(generator: np.random.Generator, length: int, width: int) -> Float32[np.ndarray, "L A"]:
    """Uniform in [-1, 1], independent in every step and actuator, `[L, A]`.

    Args:
        generator: the source of randomness; the same state gives the same actions.
        length: L, steps.
        width: A, actuators.
    """
    return generator.uniform(-1.0, 1.0, (length, width)).astype(np.float32)


def smooth_actions(generator: np.random.Generator, length: int, width: int) -> Float32[np.ndarray, "L A"]:
    """Correlated in time, clipped to [-1, 1] and without drift, `[L, A]`.

    u_t = ρ u_{t-1} + σ √(1-ρ²) ε_t with ρ = exp(-1/τ) is an Ornstein-Uhlenbeck process (1930) that starts in its
    stationary distribution N(0, σ²). The action is u_t minus the force of a weak spring and damper on a free unit mass
    that the actions move: a filter against drift. Each episode draws σ from `AMPLITUDE` and each actuator τ from
    `TIME_SCALE`, log-uniformly. Independent noise, in contrast, averages out and hardly moves a heavy body.

    Args:
        generator: the source of randomness; the same state gives the same actions.
        length: L, steps.
        width: A, actuators.
    """
    amplitude = _log_uniform(generator, AMPLITUDE, 1)
    keep = np.exp(-1.0 / _log_uniform(generator, TIME_SCALE, width))
    noise = amplitude * generator.standard_normal((length, width))
    actions = np.empty((length, width), np.float32)
    push, velocity, place = np.zeros((3, width))
    for step in range(length):
        push = keep * push + np.sqrt(1.0 - keep**2) * noise[step] if step else noise[0]
        actions[step] = np.clip(push - DAMPING * velocity - STIFFNESS * place, -1.0, 1.0)
        velocity = velocity + actions[step]
        place = place + velocity
    return actions


def _log_uniform(generator: np.random.Generator, bounds: tuple[float, float], size: int) -> np.ndarray:
    low, high = np.log(bounds)
    return np.exp(generator.uniform(low, high, size))


EXPERT_NOISE = 0.1
"""Standard deviation of the noise on the controller's actions, so that the data contains recoveries."""

MEDIUM_SHARE = (0.3, 0.7)
"""Range of the share of smooth noise in a medium policy's actions, drawn per episode."""

SEQUENCES: dict[Sequence, Callable[[np.random.Generator, int, int], Float32[np.ndarray, "L A"]]] = {
    "random": random_actions,
    "smooth": smooth_actions,
}
"""Policies whose actions are drawn before the episode starts."""

MIXED: tuple[Policy, ...] = ("smooth", "medium", "expert")
"""Policies that each episode of mixed is drawn from."""


def start_policy(policy: Policy, generator: np.random.Generator, length: int, environment: Controlled) -> Act:
    """The policy of one episode of up to `length` steps.

    random and smooth are `random_actions` and `smooth_actions`; expert is the task's controller with a little noise;
    medium mixes the controller's actions with smooth noise; mixed is smooth, medium or expert, drawn per episode.
    """
    if policy == "mixed":
        return start_policy(MIXED[generator.integers(len(MIXED))], generator, length, environment)
    if policy == "expert":
        jitter = EXPERT_NOISE * generator.standard_normal((length, environment.action_width))
        return lambda step: _bounded(environment.control() + jitter[step])
    if policy == "medium":
        share = generator.uniform(*MEDIUM_SHARE)
        noise = smooth_actions(generator, length, environment.action_width)
        return lambda step: _bounded((1 - share) * environment.control() + share * noise[step])
    actions = SEQUENCES[policy](generator, length, environment.action_width)
    return lambda step: actions[step]


def _bounded(action: np.ndarray) -> Float32[np.ndarray, " A"]:
    return np.clip(action, -1.0, 1.0).astype(np.float32)
