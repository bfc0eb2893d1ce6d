"""The recorded state read from frames: whether a predicted frame shows the body in its place and pose.

A small convolutional network is fitted to read the recorded state from single true frames. Applied to predicted frames,
its errors show a second cart, a missing pole or a bent arm, which pixel errors hardly do. It is fitted to other
episodes than those that are scored. Entries that single frames do not determine, such as velocities, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from aime.data import Dataset
from aime.data.clips import clip_starts, read_clips
from aime.data.state_names import number_names
from aime.inference.probe import STILL, r_squared, rate_entries
from aime.primitives.pixels import to_unit
from aime.primitives.randomness import preserved_random_state

FRAMES = 3072
"""True frames that the reader is fitted to and checked on, at most."""

STRETCH = 16
"""Consecutive frames that are taken of an episode at once: those of a chunk cost one decompression."""

LEAST_FRAMES = 64
"""Frames below which no reader is fitted."""

CHECKED = 5
"""Every fifth episode is left out of the fit, and the reader is checked on it."""

LEAST_R2 = 0.5
"""Of an entry in the left-out episodes; one that is read less well from true frames is not scored."""

EPOCHS, BATCH, RATE = 12, 64, 3e-3

LARGEST = 64
"""Pixels of a side that the network sees; larger frames are averaged down to them."""

TURN = 6.0
"""A number that ranges over more may be an angle, of which cosine and sine are read."""


class ReadErrors(NamedTuple):
    """Squared errors of what is read in B clips, in units of each number's variance; E numbers are read."""

    likeliest: Float[Tensor, "B F E"]
    """From the most likely future."""
    samples: Float[Tensor, "B F E"]
    """Of the mean of what is read from the sampled futures."""
    true_frames: Float[Tensor, "B F E"]
    """From the true frames: what the reader itself gets wrong."""
    persistence: Float[Tensor, "B F E"]
    """From the last frame of the context."""
    mean: Float[Tensor, "B F E"]
    """Of the mean of the states that the reader was fitted to."""


class _Column(NamedTuple):
    """A number that the network predicts."""

    entry: int
    """Of the state."""
    form: str
    """value, cos or sin."""


@dataclass(frozen=True)
class FrameStateReader:
    """Reads some entries of the state from single frames.

    Attributes:
        network: to standardised columns.
        centre: the mean frame that it was fitted to, in [0, 1], at most `LARGEST` pixels a side.
        spread: root mean square of the frames around it.
        columns: what it predicts, the two of an angle one after the other.
        mean: of the columns.
        std: likewise.
        entries: the names of the E numbers of the state that are read.
        scores: R² of each in the true frames of left-out episodes.
        frames: how many it was fitted to.
    """

    network: nn.Module
    centre: Float[Tensor, "3 h w"]
    spread: float
    columns: tuple[_Column, ...]
    mean: Float[Tensor, " C"]
    std: Float[Tensor, " C"]
    entries: tuple[str, ...]
    scores: tuple[float, ...]
    frames: int

    @property
    def title(self) -> str:
        """The entries that it reads, and their R²."""
        read = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.entries, self.scores, strict=True))
        return f"fitted to {self.frames} true frames of other episodes of the data; R² on true frames: {read}"

    def to(self, device: torch.device) -> FrameStateReader:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("network", "centre", "mean", "std")}
        return FrameStateReader(**(vars(self) | moved))

    def read(self, frames: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N C"]:
        """The standardised columns that frames in [0, 1] show."""
        found: Tensor = self.network((_shrunk(frames.flatten(0, -4)) - self.centre) / self.spread)
        return found.unflatten(0, frames.shape[:-3])

    def errors(self, read: Float[Tensor, "*N C"], states: Float[Tensor, "*N S"]) -> Float[Tensor, "*N E"]:
        """Squared errors of the entries, an angle's averaged over cosine and sine; NaN where the state is not known."""
        errors = (read - (_columns_of(states, self.columns) - self.mean) / self.std).square()
        return torch.stack([errors[..., own].mean(dim=-1) for own in _by_entry(self.columns)], dim=-1)

    def judge(
        self,
        likeliest: Float[Tensor, "B F 3 H W"],
        futures: Float[Tensor, "B S F 3 H W"],
        frames: Float[Tensor, "B T 3 H W"],
        states: Float[Tensor, "B T S"],
    ) -> ReadErrors:
        """Errors after a context of T - F frames.

        Args:
            likeliest: the most likely future.
            futures: sampled ones.
            frames: the true ones, with those of the context.
            states: of all true frames, NaN where not known.
        """
        context = frames.shape[1] - likeliest.shape[1]
        truth = states[:, context:]
        of_samples = torch.stack([self.read(own).mean(dim=0) for own in futures])
        shown = {
            "likeliest": self.read(likeliest),
            "samples": of_samples,
            "true_frames": self.read(frames[:, context:]),
            "persistence": self.read(frames[:, context - 1 : context]),
            "mean": torch.zeros_like(of_samples),
        }
        return ReadErrors(**{name: self.errors(each, truth) for name, each in shown.items()})


def no_reading(unknown: Float[Tensor, "B F"]) -> ReadErrors:
    """Of clips in which nothing is read."""
    return ReadErrors(*(unknown[..., None][..., :0] for _ in ReadErrors._fields))


def fit_reader(dataset: Dataset | None) -> FrameStateReader | str:
    """Fit a reader to some episodes; the same episodes give the same one. Or say in one line why there is none.

    Args:
        dataset: episodes that are not scored; None if there are none.

    Raises:
        AimeError: if a file is damaged.
    """
    if dataset is None:
        return "none: the data has no other episodes to fit a reader to"
    if not dataset.has_state:
        return "none: the data has no states"
    frames, states, episodes = _material(dataset)
    if len(frames) < LEAST_FRAMES:
        return f"none: the other episodes have {len(frames)} frames with known states, fewer than {LEAST_FRAMES}"
    columns = _candidates(states, dataset.state_names)
    left_out = episodes % CHECKED == CHECKED - 1
    if not left_out.any() or not columns:
        return "none: fewer than five other episodes, or no number of the state varies"
    targets = _columns_of(states, columns)
    mean, std = targets[~left_out].mean(dim=0), targets[~left_out].std(dim=0).clamp_min(STILL**0.5)
    centre = frames[~left_out].mean(dim=0)
    inputs = frames - centre
    spread = max(float(inputs[~left_out].square().mean().sqrt()), 1e-3)
    inputs /= spread
    network = _fitted(inputs[~left_out], ((targets - mean) / std)[~left_out])
    with torch.no_grad():
        found = network(inputs[left_out]) * std + mean
    scores = r_squared(found.double(), targets[left_out].double()).nan_to_num(nan=-1.0)
    kept = _readable(columns, scores)
    if not kept:
        return f"none: no number of the state is read from single frames with R² {LEAST_R2} (best {scores.max():.2f})"
    _keep_rows(network[-1], kept)
    chosen = tuple(columns[each] for each in kept)
    names = number_names(dataset.state_names, dataset.state_width) or [
        f"state[{number}]" for number in range(dataset.state_width)
    ]
    own = _by_entry(chosen)
    return FrameStateReader(
        network=network,
        centre=centre,
        spread=spread,
        columns=chosen,
        mean=mean[kept],
        std=std[kept],
        entries=tuple(names[chosen[each[0]].entry] for each in own),
        scores=tuple(float(scores[kept][each].mean()) for each in own),
        frames=int((~left_out).sum()),
    )


def _material(dataset: Dataset) -> tuple[Float[Tensor, "N 3 h w"], Float[Tensor, "N S"], Int64[Tensor, " N"]]:
    """Frames whose state is known, as the network sees them, from short stretches at equal distances through all."""
    length = min(STRETCH, int(dataset.lengths.max()))
    places = clip_starts(dataset, length)
    count = len(places.episodes)
    places = places.take(np.unique(np.linspace(0, count - 1, min(count, FRAMES // length)).astype(np.int64)))
    _, number = np.unique(places.episodes, return_inverse=True)
    frames, states, episodes = [], [], []
    # large frames are averaged down as they come
    for rows in np.array_split(np.arange(len(number)), -(-len(number) // STRETCH)):
        clips = read_clips(dataset, places.take(rows), length)
        assert clips.states is not None, "asked of data with states"
        known: Bool[Tensor, "B T"] = clips.states.isfinite().all(dim=-1) & clips.valid
        frames.append(_shrunk(to_unit(clips.frames[known])))
        states.append(clips.states[known])
        episodes.append(torch.from_numpy(number[rows])[:, None].expand(-1, length)[known])
    return torch.cat(frames), torch.cat(states), torch.cat(episodes)


def _candidates(states: Float[Tensor, "N S"], names: dict[str, int]) -> list[_Column]:
    """Every entry that varies, as its value; possible angles also as cosine and sine."""
    rates = rate_entries(names)
    columns = []
    for entry, values in enumerate(states.unbind(dim=1)):
        if values.double().var(correction=0) > STILL:
            columns.append(_Column(entry, "value"))
            if values.max() - values.min() > TURN and entry not in rates:
                columns += [_Column(entry, "cos"), _Column(entry, "sin")]
    return columns


def _readable(columns: Sequence[_Column], scores: Float[Tensor, " C"]) -> list[int]:
    """The columns to keep: of a possible angle either its value or its cosine and sine, whichever is read better."""
    kept: list[int] = []
    for own in _by_entry(columns):
        value, turned = own[:1], own[1:]
        best = turned if turned and scores[turned].mean() > scores[value].mean() else value
        if scores[best].mean() >= LEAST_R2:
            kept += best
    return kept


def _by_entry(columns: Sequence[_Column]) -> list[list[int]]:
    """The numbers of the columns of each entry."""
    entries = dict.fromkeys(column.entry for column in columns)
    return [[at for at, column in enumerate(columns) if column.entry == entry] for entry in entries]


def _columns_of(states: Float[Tensor, "*N S"], columns: Sequence[_Column]) -> Float[Tensor, "*N C"]:
    turned = {"value": states, "cos": states.cos(), "sin": states.sin()}
    return torch.stack([turned[column.form][..., column.entry] for column in columns], dim=-1)


def _shrunk(frames: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 h w"]:
    return F.adaptive_avg_pool2d(frames, LARGEST) if frames.shape[-1] > LARGEST else frames


def _fitted(inputs: Float[Tensor, "N 3 h w"], targets: Float[Tensor, "N C"]) -> nn.Sequential:
    """The network after a few epochs of AdamW, on the CPU with a seed of its own.

    Its two convolutions are those of Mnih et al. 2013, "Playing Atari with deep reinforcement learning", section 5.1.
    """
    steps = EPOCHS * -(-len(inputs) // BATCH)
    with preserved_random_state(torch.device("cpu"), seed=0), torch.inference_mode(False), torch.enable_grad():
        network = nn.Sequential(
            nn.Conv2d(3, 16, 8, stride=4, padding=2),
            nn.SiLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.LazyLinear(128),
            nn.SiLU(),
            nn.Linear(128, targets.shape[1]),
        )
        network(inputs[:1])  # gives the lazy layer its size
        optimizer = torch.optim.AdamW(network.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        order = torch.cat([torch.randperm(len(inputs)) for _ in range(EPOCHS)])
        for rows in order.split(BATCH)[:steps]:
            optimizer.zero_grad()
            F.mse_loss(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.requires_grad_(False)


def _keep_rows(layer: nn.Module, kept: Sequence[int]) -> None:
    assert isinstance(layer, nn.Linear) and layer.bias is not None
    layer.weight, layer.bias = (nn.Parameter(each[kept], requires_grad=False) for each in (layer.weight, layer.bias))
    layer.out_features = len(kept)
