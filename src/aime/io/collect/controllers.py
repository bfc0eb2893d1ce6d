"""Scripted controllers on the simulator's state, for the policies medium and expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

Controller = Callable[[Any], Float64[np.ndarray, " A"]]
"""From dm_control's physics to an action `[A]` in [-1, 1]."""

POLE_MASS, POLE_LENGTH, GRAVITY = 0.1, 1.0, 9.81
"""kg, m and m/s² of dm_control's cartpole; the cart has 1 kg, and an action of 1 is a force of 10 N."""

BALANCE = np.array([0.981, 1.0, 5.936, 1.507])
"""Feedback from (m, m/s, rad, rad/s): a linear-quadratic regulator of the upright pole, for actions held for 0.04 s,
with costs 3.4 x² + 0.1 ẋ² + 5 θ² + 0.1 θ̇² + 2 a²."""

CATCH_ANGLE, CATCH_SPEED = 0.45, 4.1
"""Limits within which the regulator balances, in rad and rad/s."""

PUMP, MOST_PUMP, RECENTRE, BRAKE = 7.9, 1.0, 0.65, 0.32
"""Of the swing-up: action per joule and rad/s, its bound, action per m and per m/s.

Found by search, with noise on the actions: high returns at the worst of eight initial states, and a cart that stays
within 1 m of the centre, because it leaves the picture at 1.5 m.
"""

LINK = 0.12
"""Length of the reacher's two links in m."""

WRIST_LIMIT = np.deg2rad(155.0)

REACH, DAMP = 1.5, 0.05
"""Action per rad and per rad/s."""


def cartpole(physics: Any) -> Float64[np.ndarray, " 1"]:
    """Swing up by energy control, then balance: return 873 of 1000 on cartpole-swingup, with action repeat 4.

    Far from upright, the force drives the pole's energy to that of the upright equilibrium (Åström & Furuta 2000,
    "Swinging up a pendulum by energy control", equation 8).
    """
    (place, angle), (speed, turning) = physics.data.qpos, physics.data.qvel
    angle = _wrapped(angle)
    if abs(angle) < CATCH_ANGLE and abs(turning) < CATCH_SPEED:
        push = BALANCE @ np.array([place, speed, angle, turning])
    else:
        energy = _pole_energy(angle, turning)
        at_rest = abs(turning) < 0.05 and np.cos(angle) < -0.99
        pump = (np.sign(-place) or 1.0) if at_rest else PUMP * energy * turning * np.cos(angle)
        push = np.clip(pump, -MOST_PUMP, MOST_PUMP) - RECENTRE * place - BRAKE * speed
    return np.clip(np.array([push]), -1.0, 1.0)


def reacher(physics: Any) -> Float64[np.ndarray, " 2"]:
    """Turn both joints to the nearer of the two postures that reach the target: return 986 of 1000 on reacher-easy."""
    target = physics.named.data.geom_xpos["target", :2]
    distance = np.clip(np.hypot(*target), 1e-6, 2 * LINK)
    bend = min(2 * np.arccos(distance / (2 * LINK)), WRIST_LIMIT)
    heading = np.arctan2(target[1], target[0])
    shoulder, wrist = physics.data.qpos
    errors = [np.array([_wrapped(heading - side * bend / 2 - shoulder), side * bend - wrist]) for side in (1.0, -1.0)]
    nearest = min(errors, key=lambda error: float(np.abs(error).max()))
    return np.clip(REACH * nearest - DAMP * physics.data.qvel, -1.0, 1.0)


CONTROLLERS: dict[str, Controller] = {
    "cartpole_balance": cartpole,
    "cartpole_swingup": cartpole,
    "reacher_easy": reacher,
    "reacher_hard": reacher,
}
"""By DOMAIN_TASK."""


def _pole_energy(angle: float, turning: float) -> float:
    """Energy in joules, 0 at the upright equilibrium; without the cart's motion."""
    inertia = POLE_MASS * POLE_LENGTH**2 / 3
    return 0.5 * inertia * turning**2 + POLE_MASS * GRAVITY * POLE_LENGTH / 2 * (np.cos(angle) - 1)


def _wrapped(angle: float) -> float:
    """The angle in [-π, π)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
