"""Prediction and representation beside DreamerV3's world model, after equal wall time on the same clips.

    python benchmarks/quality.py --data bundled:cartpole --minutes 5 --out runs/bench/quality

Trains AIME as its own command would and the peer (from torchrl's parts: the extra `bench`) one after the other, each
alone on the machine, then judges both on the same clips of the test part: five frames of context, 45 predicted, 16
sampled futures and the likeliest one, with 95 % intervals over episodes. Choices are made with `--part validation`. The
probe is a ridge regression from what the model carries between frames (h, z), on training clips, to the simulator's
state, with the penalty for each entry that is best on training episodes left out; R² is on the clips that are judged,
the mean over the state's entries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from dreamer_v3 import DreamerV3, DreamerV3Config
from einops import rearrange
from jaxtyping import Float, Float64
from measuring import Machine, machine_of, parser_with_machine
from safetensors.torch import save_file
from torch import Tensor, nn

from aime.data import Clips, ClipSampler, Dataset, open_dataset, prefetch
from aime.data.clips import clip_seeds, clip_starts, read_clips
from aime.data.drawing import ClipStarts
from aime.inference import metrics
from aime.inference.probe import StateColumns, fit_ridge, is_angle, r_squared_intervals, score_probe
from aime.primitives.hardware import Hardware, keep_freed_memory
from aime.primitives.interval_text import bounds_text
from aime.primitives.intervals import Bounds, Interval, bounds_of, pooled, resampled_counts
from aime.primitives.pixels import to_unit
from aime.runs.schedule import learning_rate_factor
from aime.training.presets import preset_run
from aime.training.trainer import train
from aime.world_model.model import AIME

CONTEXT, HORIZON, SAMPLES = 5, 45, 16
LENGTH = CONTEXT + HORIZON
SHOWN = (1, 5, 15, 45)
JUDGED_CLIPS, PROBE_CLIPS = 48, 200
CLIPS_AT_ONCE = 4


Part = Literal["test", "validation"]


class Setting(NamedTuple):
    """One comparison."""

    data: str
    minutes: float
    """Of training for each model."""
    seed: int
    preset: str
    machine: Machine
    peer_rate: float
    """The peer's peak learning rate."""
    part: Part
    """Of the data's held-out episodes: test, or validation, on which choices are made."""
    judge_on: str | None
    """A data set whose every episode is judged on, in place of the held-out ones."""
    clips: int
    """At most so many are judged on."""


class Contender(NamedTuple):
    """A trained model, as the judge needs it."""

    predict: Callable[[Tensor, Tensor, int | None, Sequence[int]], Float[Tensor, "B S F 3 H W"]]
    """Futures of context frames in [0, 1] and actions: so many samples, or the likeliest one; a seed a clip."""
    features: Callable[[Tensor, Tensor], Float[Tensor, "B T features"]]
    """(h, z) of frames in [0, 1] and actions."""
    steps: int
    device: torch.device


class Verdict(NamedTuple):
    """What a contender came to."""

    steps: int
    curves: dict[str, list[float]]
    """By measure, for every horizon from 1 on, averaged over clips."""
    intervals: dict[str, list[Bounds | None]]
    """The same of 95 % intervals over episodes."""
    probe_r2: float | None
    """None where the data have no simulator state."""
    probe_interval: Bounds | None


def train_aime(setting: Setting, dataset: Dataset, out: Path) -> Contender:
    """AIME as `aime train` would."""
    config = preset_run(setting.preset, setting.data, out, dataset.action_width, dataset.image_size)
    config = replace(
        config,
        minutes=setting.minutes,
        seed=setting.seed,
        pictures=False,
        device=setting.machine.device,
        precision=setting.machine.precision,
    )
    steps = train(config).step
    model = AIME.from_pretrained(out, setting.machine.hardware().device)

    def predict(frames: Tensor, actions: Tensor, samples: int | None, seeds: Sequence[int]) -> Tensor:
        futures = model.predict_future(frames, actions, samples, seeds).frames
        return futures if samples else futures[:, None]

    def features(frames: Tensor, actions: Tensor) -> Tensor:
        output = model.forward_sequence(frames, actions)
        return torch.cat([output.beliefs, output.latents], -1)

    return Contender(predict, features, steps, model.device)


def train_peer(setting: Setting, dataset: Dataset, out: Path) -> Contender:
    """The peer, for as long, on batches of the same shape, with the same schedule of its learning rate."""
    torch.manual_seed(setting.seed)
    hardware = setting.machine.hardware()
    model = DreamerV3(DreamerV3Config(dataset.action_width, dataset.image_size)).to(hardware.device)
    defaults = preset_run(setting.preset, setting.data, out, dataset.action_width, dataset.image_size)
    optimizer = torch.optim.Adam(model.parameters(), setting.peer_rate, fused=True)
    sampler = ClipSampler(dataset, defaults.batch, defaults.length, setting.seed)
    start, step = time.perf_counter(), 0
    for clips in prefetch(sampler, start=0):
        share = (time.perf_counter() - start) / (60 * setting.minutes)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = setting.peer_rate * learning_rate_factor(step, share, defaults.optimizer.warmup)
        peer_step(model, optimizer, clips.to(hardware.device), hardware)
        step += 1
    out.mkdir(parents=True, exist_ok=True)
    own = {name: value.contiguous() for name, value in model.state_dict().items() if not name.startswith("rollout")}
    save_file(own, out / "peer.safetensors")
    model.eval()

    def features(frames: Tensor, actions: Tensor) -> Tensor:
        seen = model.observe(frames, actions)
        return torch.cat([seen["belief"], seen["state"]], -1)

    def predict(frames: Tensor, actions: Tensor, samples: int | None, seeds: Sequence[int]) -> Tensor:
        # its samples are of torch's generator: clip by clip they depend on the clip's seed alone
        rows = zip(frames.split(1), actions.split(1), seeds, strict=True)
        return torch.cat([model.predict_future(seen, own, samples, seed) for seen, own, seed in rows])

    return Contender(predict, features, step, hardware.device)


TRAINERS = {"aime": train_aime, "peer": train_peer}


def peer_step(model: DreamerV3, optimizer: torch.optim.Optimizer, clips: Clips, hardware: Hardware) -> None:
    """One optimizer step."""
    optimizer.zero_grad(set_to_none=True)
    with hardware.autocast():
        total = model(to_unit(clips.frames), clips.actions).total
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1000.0)
    optimizer.step()


@torch.no_grad()
def clip_scores(
    contender: Contender, clips: Clips, seeds: Sequence[int], mean_image: Float[Tensor, "3 H W"], device: torch.device
) -> dict[str, Float[Tensor, "B F"]]:
    """Scores of each clip by name."""
    truth = to_unit(clips.frames).to(device)
    actions, mean_image = clips.actions.to(device), mean_image.to(device)
    future = truth[:, CONTEXT:]
    parts: dict[str, list[Tensor]] = {name: [] for name in ("mse", "mse_likeliest", "ssim", "energy", "coverage")}
    for first in range(0, len(truth), CLIPS_AT_ONCE):
        own = slice(first, first + CLIPS_AT_ONCE)
        samples = contender.predict(truth[own, :CONTEXT], actions[own], SAMPLES, seeds[own])
        mean = samples.mean(1)
        parts["mse"].append(metrics.frame_mse(mean, future[own]))
        likeliest = contender.predict(truth[own, :CONTEXT], actions[own], None, seeds[own])[:, 0]
        parts["mse_likeliest"].append(metrics.frame_mse(likeliest, future[own]))
        similar = metrics.ssim(mean.flatten(0, 1), future[own].flatten(0, 1))
        parts["ssim"].append(rearrange(similar, "(b f) -> b f", b=len(mean)))
        parts["energy"].append(metrics.energy_score(samples, future[own]))
        within = metrics.coverage(samples, future[own])
        assert within is not None, "16 samples are enough for an interval"
        parts["coverage"].append(within.everywhere)
    scores = {name: torch.cat(each).cpu() for name, each in parts.items()}
    scores["still"] = metrics.frame_mse(truth[:, CONTEXT - 1 : CONTEXT], future).cpu()
    scores["mean image"] = metrics.frame_mse(mean_image, future).cpu()
    return scores | {"psnr": metrics.psnr(scores["mse"])}


def curves(scores: dict[str, Float[Tensor, "B F"]], counts: Float64[Tensor, "R B"]) -> dict[str, Tensor]:
    """Scores by name, `[R,F]`, averaged over R sets of clips as `aime evaluate` does."""
    mean = {name: counts @ each.double() / counts.sum(1, keepdim=True) for name, each in scores.items()}
    baselines = mean.pop("still"), mean.pop("mean image")
    skills = {
        name: metrics.skill(mean.pop(error), *baselines)
        for name, error in (("skill", "mse"), ("skill_likeliest", "mse_likeliest"))
    }
    return {**skills, "psnr": mean.pop("psnr"), **mean}


@torch.no_grad()
def probe(
    contender: Contender,
    seen: Clips,
    of_seen: ClipStarts,
    names: Mapping[str, int],
    judged: Clips,
    of_judged: ClipStarts,
) -> Interval:
    """R² of the simulator's state from (h, z), fitted to clips of a data set, on unseen clips."""
    (inputs, targets), (test, truth) = (_material(contender, clips) for clips in (seen, judged))
    columns = StateColumns(is_angle(targets, names))
    each = seen.frames.shape[1] - CONTEXT
    episode, of_test = (torch.from_numpy(places.episodes).repeat_interleave(each) for places in (of_seen, of_judged))
    wanted = columns(targets)
    ridge = fit_ridge(inputs, wanted, episode)
    scores = score_probe(columns.entries, ridge(test), columns(truth), wanted.mean(0), of_test)
    return r_squared_intervals([scores], [range(wanted.shape[1])])[0]


def _material(contender: Contender, clips: Clips) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N S"]]:
    """(h, z) and states of all frames after the context."""
    frames, actions = to_unit(clips.frames), clips.actions
    pieces = [
        contender.features(*(each[at : at + CLIPS_AT_ONCE].to(contender.device) for each in (frames, actions)))
        for at in range(0, len(frames), CLIPS_AT_ONCE)
    ]
    assert clips.states is not None, "the probe needs the simulator's states"
    return (
        torch.cat(pieces)[:, CONTEXT:].flatten(0, 1).double().cpu(),
        clips.states[:, CONTEXT:].flatten(0, 1).double(),
    )


def compare(setting: Setting, out: Path, models: list[str]) -> dict[str, Verdict]:
    """Train and judge, one after the other."""
    dataset = open_dataset(setting.data, "train")
    unseen = open_dataset(setting.judge_on or setting.data, "all" if setting.judge_on else setting.part)
    unseen = unseen.in_scale(dataset.action_scale)
    device = setting.machine.hardware().device
    mean_image = torch.from_numpy(dataset.mean_image())
    places, of_seen = clip_starts(unseen, LENGTH, setting.clips), clip_starts(dataset, LENGTH, PROBE_CLIPS)
    clips, seen = read_clips(unseen, places, LENGTH), read_clips(dataset, of_seen, LENGTH)
    seeds, groups = clip_seeds(unseen, places), pooled(places.episodes)
    counts = torch.from_numpy(resampled_counts(len(groups)) @ groups)
    found = {}
    for name in models:
        contender = TRAINERS[name](setting, dataset, out / name)
        r2 = None
        if clips.states is not None:
            r2 = probe(contender, seen, of_seen, dataset.state_names, clips, places)
        scores = clip_scores(contender, clips, seeds, mean_image, device)
        point = {key: each[0].tolist() for key, each in curves(scores, torch.ones(1, len(seeds)).double()).items()}
        drawn = {key: each.numpy() for key, each in curves(scores, counts).items()}
        intervals = {
            key: [bounds_of(value, drawn[key][:, at], len(groups)) for at, value in enumerate(values)]
            for key, values in point.items()
        }
        probed = (None, None) if r2 is None else (r2.mean, r2.bounds)
        found[name] = Verdict(contender.steps, point, intervals, *probed)
    return found


def main() -> None:
    """Train, judge and print."""
    parser = parser_with_machine(__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/quality"))
    parser.add_argument("--models", nargs="+", choices=tuple(TRAINERS), default=list(TRAINERS))
    options = parser.parse_args()
    keep_freed_memory()
    for setting, folder in settings(options, options.out):
        found = record(setting, folder, options.models)
        (folder / "quality.json").write_text(json.dumps(found) + "\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `settings` reads, beside the machine."""
    parser.add_argument("--data", nargs="*", default=["bundled:cartpole"])
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0], help="of training for each model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--peer-rate", type=float, default=1e-3, help="the peer's peak learning rate")
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="validation to make a choice")
    parser.add_argument("--judge-on", help="a data set of new episodes to judge on, for the test part")
    parser.add_argument("--clips", type=int, default=JUDGED_CLIPS, help="to judge on, at most")


def settings(options: argparse.Namespace, out: Path) -> Iterator[tuple[Setting, Path]]:
    """Every comparison that a command line asks for, and its folder."""
    for data, minutes, seed in itertools.product(options.data, options.minutes, options.seeds):
        machine = machine_of(options)
        judged = options.part, options.judge_on, options.clips
        setting = Setting(data, minutes, seed, options.preset, machine, options.peer_rate, *judged)
        yield setting, out / f"{Path(data).name.replace(':', '-')}-{minutes:g}min-seed{seed}"


def record(setting: Setting, folder: Path, models: list[str]) -> dict[str, Any]:
    """Compare, print, and say what was compared."""
    found = compare(setting, folder, models)
    show_verdicts(found)
    known = {"data": setting.data, "minutes": setting.minutes, "seed": setting.seed, "preset": setting.preset}
    known |= {"part": setting.part} if setting.judge_on is None else {"judge_on": setting.judge_on}
    return known | setting.machine.describe() | {name: verdict._asdict() for name, verdict in found.items()}


def show_verdicts(found: dict[str, Verdict]) -> None:
    """Print a table: a line per measure, each at the horizons shown, with its interval below."""
    for name, verdict in found.items():
        print(
            f"{name}: {verdict.steps} steps; probe R², and its interval: {verdict.probe_r2}, {verdict.probe_interval}"
        )
        for measure, curve in verdict.curves.items():
            print(f"  {measure:16}", *(f"{curve[at - 1]:>15.3f}" for at in SHOWN))
            print(" " * 18, *(f"{bounds_text(verdict.intervals[measure][at - 1], '.3f'):>15}" for at in SHOWN))


if __name__ == "__main__":
    main()
