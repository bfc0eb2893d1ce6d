"""Imagination beside DreamerV3's: latent steps per second, with and without decoding, and the latency of one step.

python benchmarks/dreaming.py --preset tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measuring import Figures, Machine, Make, machine_of, parser_with_machine, race, show

from aime.dynamics.choices import sampled
from aime.primitives.hardware import Hardware
from aime.world_model.model import AIME
from aime.world_model.prediction import decode_in_chunks
from aime.world_model.presets import PRESETS

HORIZON = 45
BATCHES = (1, 16, 256, 1024)
DECODED_BATCHES = (1, 16)
"""Decoding a thousand dreams says nothing new and takes minutes."""
STEPS_A_CALL = 20


def aime_dream(preset: str, batch: int, decode: bool, hardware: Hardware) -> Callable[[], object]:
    """`batch` dreams of AIME's side by side."""
    model = AIME(PRESETS[preset](1, 64)).to(hardware.device).eval()
    actions = torch.zeros(batch, HORIZON, 1, device=hardware.device)
    with torch.no_grad():
        start = model.dynamics.start(batch)
        first_map = model.attention.initial_map(batch)

    def dream() -> None:
        with torch.no_grad(), hardware.autocast():
            dreamt = model.dynamics.rollout(start, actions, sampled)
            if decode:
                maps = model.attention.roll(dreamt.beliefs, dreamt.latents, first_map)
                decode_in_chunks(model, dreamt.latents.flatten(0, 1), maps.flatten(0, 1))

    return dream


def peer_dream(batch: int, decode: bool, hardware: Hardware) -> Callable[[], object]:
    """As many of the peer's."""
    from dreamer_v3 import DreamerV3, DreamerV3Config

    model = DreamerV3(DreamerV3Config(1)).to(hardware.device).eval()
    action = torch.zeros(batch, HORIZON, 1, device=hardware.device)

    def dream() -> None:
        with torch.no_grad(), hardware.autocast():
            state = torch.zeros(batch, model.state_width, device=hardware.device)
            belief = torch.zeros(batch, model.config.belief, device=hardware.device)
            states, beliefs = model.dream(state, belief, action)
            if decode:
                model.decode(states.flatten(0, 1), beliefs.flatten(0, 1))

    return dream


def aime_act(preset: str, hardware: Hardware) -> Callable[[], object]:
    """One video watched: see a frame, imagine a step, again and again."""
    model = AIME(PRESETS[preset](1, 64)).to(hardware.device).eval()
    frame = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=hardware.device)
    action = torch.zeros(1, 1, device=hardware.device)

    def act() -> None:
        state = model.initial_state(1)
        for _ in range(STEPS_A_CALL):
            state, _ = model.observe(state, frame, action)
            model.imagine(state, action)

    return act


def peer_act(hardware: Hardware) -> Callable[[], object]:
    """The same of the peer."""
    from dreamer_v3 import DreamerV3, DreamerV3Config

    model = DreamerV3(DreamerV3Config(1)).to(hardware.device).eval()
    frame = torch.zeros(1, 1, 3, 64, 64, device=hardware.device)
    action = torch.zeros(1, 1, device=hardware.device)

    @torch.no_grad()
    def act() -> None:
        state = torch.zeros(1, model.state_width, device=hardware.device)
        belief = torch.zeros(1, model.config.belief, device=hardware.device)
        for _ in range(STEPS_A_CALL):
            _, _, belief = model.prior(state, belief, action)
            _, state = model.posterior(belief, model.encoder(frame)[:, 0])
            model.prior(state, belief, action)

    return act


def measure(preset: str, machine: Machine, rounds: int, with_peer: bool) -> Figures:
    """Rates by number of dreams, and milliseconds of `observe` and `imagine` for one video."""
    figures: Figures = {}
    for decode, batches in ((False, BATCHES), (True, DECODED_BATCHES)):
        what = "decoded_" if decode else ""
        for batch in batches:
            dreams: dict[str, Make] = {"aime": partial(aime_dream, preset, batch, decode)}
            if with_peer:
                dreams["peer"] = partial(peer_dream, batch, decode)
            found = race(dreams, rounds, machine)
            for name in dreams:
                figures[f"{name}_{what}steps_per_second_B{batch}"] = round(batch * HORIZON / found.seconds(name))
            if with_peer:
                figures[f"{what}steps_over_peer_B{batch}"] = round(found.ratio("peer", "aime"), 2)
    acts: dict[str, Make] = {"aime": partial(aime_act, preset)} | ({"peer": peer_act} if with_peer else {})
    found = race(acts, rounds, machine)
    for name in acts:
        figures[f"{name}_observe_and_imagine_ms"] = round(1000 * found.seconds(name) / STEPS_A_CALL, 2)
    return figures


def main() -> None:
    """Measure and print."""
    parser = parser_with_machine(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds, after those of warm-up")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="beside the peer, or alone")
    options = parser.parse_args()
    machine = machine_of(options)
    show(machine.describe() | measure(options.preset, machine, options.rounds, options.peer))


if __name__ == "__main__":
    main()
