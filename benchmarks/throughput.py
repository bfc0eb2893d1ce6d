"""Training speed, memory and operations beside DreamerV3's world model, over the length of clips.

    python benchmarks/throughput.py --preset tiny

Whole optimizer steps take turns on the same noise: AIME complete (four tasks, RGB, discriminators), AIME with its ELBO
and perceiver tasks alone, and the peer's reconstruction and KL (from torchrl: the extra `bench`). All run in the same
precision, with convolutions in the same memory format.
"""

from __future__ import annotations

import argparse
from functools import partial

from measuring import Figures, Machine, Make, machine_of, parser_with_machine, race, show
from steps import ELBO_AND_PERCEIVER, STEPS, aime_step, flops, parameters, peer_step

from aime.benchmarking.ablation.variants import COMPLETE
from aime.world_model.model import AIME
from aime.world_model.presets import PRESETS

LENGTHS = (16, 32, 64, 128)
AIME_STEPS = {"aime": COMPLETE, "aime_elbo_perceiver": ELBO_AND_PERCEIVER}
PEER = "peer"


def measure(preset: str, machine: Machine, frames: int, lengths: list[int], rounds: int, with_peer: bool) -> Figures:
    """Frames per second, memory and ratios by length, FLOPs per frame, and the price of length."""
    figures: Figures = {"frames_in_a_batch": frames, "aime_parameters": parameters(AIME(PRESETS[preset](1, 64)))}
    if with_peer:
        from dreamer_v3 import DreamerV3, DreamerV3Config

        figures["peer_parameters"] = parameters(DreamerV3(DreamerV3Config(1)))
    counted = _contenders(preset, frames // 16, 16, with_peer)
    for name, make in counted.items():
        figures[f"{name}_gflop_a_frame"] = round(flops(make(machine.hardware())) / (STEPS * frames) / 1e9, 3)
    for length in lengths:
        found = race(_contenders(preset, frames // length, length, with_peer), rounds, machine)
        for name in found.peak_mb:
            figures[f"{name}_frames_per_second_T{length}"] = round(STEPS * frames / found.seconds(name), 1)
            figures[f"{name}_peak_mb_T{length}"] = round(found.peak_mb[name])
        for name in AIME_STEPS if with_peer else ():
            figures[f"{name}_speed_over_peer_T{length}"] = round(found.ratio(PEER, name), 2)
    if {32, 128} <= set(lengths):
        figures |= _price_of_length(preset, machine, frames, rounds, with_peer)
    return figures


def _contenders(preset: str, batch: int, length: int, with_peer: bool) -> dict[str, Make]:
    steps: dict[str, Make] = {
        name: partial(aime_step, preset, variant, batch, length) for name, variant in AIME_STEPS.items()
    }
    return steps | ({PEER: partial(peer_step, batch, length)} if with_peer else {})


def _price_of_length(preset: str, machine: Machine, frames: int, rounds: int, with_peer: bool) -> Figures:
    """The time of four clips' length over one, as many frames in all."""
    steps = {
        (name, length): make
        for length in (32, 128)
        for name, make in _contenders(preset, frames // length, length, with_peer).items()
        if name != "aime_elbo_perceiver"
    }
    found = race({f"{name} {length}": make for (name, length), make in steps.items()}, rounds, machine)
    names = {name for name, _ in steps}
    return {f"{name}_time_T128_over_T32": round(found.ratio(f"{name} 128", f"{name} 32"), 3) for name in sorted(names)}


def main() -> None:
    """Measure and print."""
    parser = parser_with_machine(__doc__)
    parser.add_argument("--frames", type=int, default=512, help="frames in a batch, B·T")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="frames in a clip, T")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, after those of warm-up")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="beside the peer, or alone")
    options = parser.parse_args()
    machine = machine_of(options)
    found = measure(options.preset, machine, options.frames, options.lengths, options.rounds, options.peer)
    show(machine.describe() | {"preset": options.preset} | found)


if __name__ == "__main__":
    main()
