"""Clips: batches of consecutive steps of episodes, for training and evaluation.

Frames are uint8 and are converted on the computing device.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from aime.data.dataset import Dataset
from aime.data.drawing import ClipStarts, Drawing
from aime.data.opening import open_dataset
from aime.data.splitting import Split
from aime.errors import AimeError


class Targets(NamedTuple):
    """Rewards, terminations and states of B clips of T frames, with masks of known values."""

    valid: Bool[Tensor, "B T"]
    """False on padding."""
    action_valid: Bool[Tensor, "B T"]
    """False on padding and for missing actions."""
    rewards: Float[Tensor, "B T"]
    """Received with the frame, in the environment's units."""
    reward_valid: Bool[Tensor, "B T"]
    terminated: Bool[Tensor, "B T"]
    """True if the episode terminated with the frame."""
    states: Float[Tensor, "B T S"]
    """In their own units, NaN if unknown; S is 0 for a model that observes frames only."""

    def only(self, rows: Bool[Tensor, " B"]) -> Targets:
        """The targets of some clips; all others become padding."""
        known = {name: getattr(self, name) & rows[:, None] for name in ("valid", "action_valid", "reward_valid")}
        return self._replace(**known)


class Clips(NamedTuple):
    """A batch of B clips of T steps; padding must not enter a loss."""

    frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"]
    """Bytes, or floats in [0, 1] during a training step, in channels-last memory; padding repeats the last frame."""
    actions: Float[Tensor, "B T A"]
    """Taken after the frame of the same step, in [-1, 1]; 0 if not valid."""
    rewards: Float[Tensor, "B T"]
    """Received with the frame of the same step, in the environment's units; 0 if not valid."""
    terminated: Bool[Tensor, "B T"]
    """True if the episode terminated with this frame."""
    valid: Bool[Tensor, "B T"]
    """False on padding."""
    action_valid: Bool[Tensor, "B T"]
    """False on padding and for missing actions (NaN in the data set)."""
    reward_valid: Bool[Tensor, "B T"]
    """False on padding and for missing rewards (NaN in the data set)."""
    states: Float[Tensor, "B T S"] | None
    """State of simulator or robot in its own units; NaN if unknown, repeated on padding; None if none was recorded."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Clips:
        """The same clips on another device."""
        return self._map(lambda field: field.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Clips:
        """The same clips in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def rows(self, chosen: slice | Int64[Tensor, " N"] | Bool[Tensor, " B"]) -> Clips:
        """Select clips."""
        return self._map(lambda field: field[chosen])

    def steps(self, chosen: slice) -> Clips:
        """Select steps of every clip."""
        return self._map(lambda field: field[:, chosen])

    def targets(self, state_width: int) -> Targets:
        """Rewards, ends and states, with their masks, for a model that observes states of this width; 0 for none."""
        states = self.states
        if states is None or not state_width:
            states = torch.full((*self.valid.shape, state_width), torch.nan, device=self.valid.device)
        return Targets(self.valid, self.action_valid, self.rewards, self.reward_valid, self.terminated, states)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Clips:
        return self._replace(**{name: function(field) for name, field in self._asdict().items() if field is not None})


class ClipSampler:
    """Samples random training clips as a pure function of (seed, step, rank), so that resuming needs only the step.

    See `aime.data.drawing` for the distribution.
    """

    def __init__(self, dataset: Dataset, batch: int, length: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        """A sampler of batches of `batch` clips of `length` steps.

        Args:
            dataset: the episodes.
            batch: clips per step and rank, 1 or more.
            length: steps per clip, 1 or more.
            seed: of the run, 0 to 2^64 - 1.
            rank: of this process, 0 to `ranks` - 1; ranks draw from disjoint sets of clips.
            ranks: number of ranks.

        Raises:
            AimeError: if a number is out of its range.
        """
        self.dataset, self.batch, self.length = dataset, batch, length
        self.drawing = Drawing(dataset.lengths, dataset.pools, batch, length, seed, rank, ranks)

    def sample(self, step: int) -> Clips:
        """The clips of one training step, 0 or later.

        Raises:
            AimeError: if a file is damaged.
        """
        episodes, starts = self.drawing.draw(step)
        return _gather(self.dataset, episodes, starts, self.length)


def prefetch(
    sampler: ClipSampler,
    start: int,
    stop: int | None = None,
    depth: int = 4,
    pin_memory: bool = False,
    workers: int = 1,
) -> Generator[Clips]:
    """The batches of steps `start` to `stop` (exclusive; endless by default), read ahead by background threads.

    Args:
        sampler: defines the batches; their order is preserved.
        start: the first step.
        stop: the end, exclusive.
        depth: number of batches to read ahead, 1 or more.
        pin_memory: return batches in page-locked memory, for a GPU.
        workers: number of threads, 1 or more.

    Raises:
        AimeError: if reading fails, at the affected batch.
    """

    def read(step: int) -> Clips:
        clips = sampler.sample(step)
        return clips.pin_memory() if pin_memory else clips

    steps = iter(itertools.count(start) if stop is None else range(start, stop))
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="aime-prefetch") as reader:
        pending: deque[Future[Clips]] = deque(reader.submit(read, step) for step in itertools.islice(steps, depth))
        try:
            while pending:
                clips = pending.popleft().result()
                pending.extend(reader.submit(read, step) for step in itertools.islice(steps, 1))
                yield clips
        finally:
            for future in pending:
                future.cancel()


def reading_threads() -> int:
    """The number of threads for reading ahead: half of this process's share of the cores, 1 to 16."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, len(os.sched_getaffinity(0)) // processes // 2))


def load_clips(
    source: str | Path | Dataset,
    length: int = 50,
    count: int | None = None,
    split: Split = "test",
    stride: int | None = None,
) -> Clips:
    """Load evaluation clips, in a fixed order: the first clip of every episode, then the second of every episode, ...

    Incomplete clips at an episode's end are dropped, but an episode shorter than a clip gives one padded clip.

    Args:
        source: as for `open_dataset`, or a data set, for which `split` is ignored.
        length: steps per clip, 1 or more.
        count: largest number of clips; all by default.
        split: of the source.
        stride: steps between the starts of clips of an episode; default: `length`, without overlap.

    Raises:
        AimeError: if a number is below 1, or the source is no data set or is damaged.
    """
    dataset = source if isinstance(source, Dataset) else open_dataset(source, split)
    return read_clips(dataset, clip_starts(dataset, length, count, stride), length)


def clip_starts(dataset: Dataset, length: int, count: int | None = None, stride: int | None = None) -> ClipStarts:
    """The positions of the clips that `load_clips` returns for the same arguments.

    Raises:
        AimeError: if a number is below 1.
    """
    stride = length if stride is None else stride
    for name, value in (("length", length), ("stride", stride), ("count", 1 if count is None else count)):
        if value < 1:
            raise AimeError(f"load_clips: {name} is {value}, expected 1 or more")
    places = [
        (start, episode)
        for episode, steps in enumerate(dataset.lengths.tolist())
        for start in range(0, max(steps - length + 1, 1), stride)
    ]
    starts, episodes = np.array(sorted(places)[:count], dtype=np.int64).T
    return ClipStarts(episodes, starts)


def clip_seeds(dataset: Dataset, places: ClipStarts, seed: int = 0) -> list[int]:
    """A seed for each clip, in 0..2^63 - 1, which depends only on the episode's content, the clip's start and `seed`.

    Args:
        dataset: of the clips.
        places: of B clips.
        seed: base seed.

    Raises:
        AimeError: if a file is damaged.
    """
    digests = dataset.select(places.episodes).digests
    texts = (f"{digest} {start} {seed}" for digest, start in zip(digests, places.starts.tolist(), strict=True))
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1 for text in texts]


def read_clips(dataset: Dataset, places: ClipStarts, length: int) -> Clips:
    """Read one clip of `length` steps from each position, padded if the episode is shorter.

    Raises:
        AimeError: if a file is damaged.
    """
    return _gather(dataset, places.episodes, places.starts, length)


def _gather(dataset: Dataset, episodes: Int64[np.ndarray, " B"], starts: Int64[np.ndarray, " B"], length: int) -> Clips:
    """Read one clip from each (episode, start), padded if the episode is shorter."""
    batch, size = len(episodes), dataset.image_size
    frames = np.empty((batch, length, size, size, 3), dtype=np.uint8)
    action = np.full((batch, length, dataset.action_width), np.nan, dtype=np.float32)
    reward = np.full((batch, length), np.nan, dtype=np.float32)
    terminated, valid = np.zeros((2, batch, length), dtype=bool)
    state = np.empty((batch, length, dataset.state_width), dtype=np.float32) if dataset.has_state else None
    for row, (episode, start) in enumerate(zip(episodes.tolist(), starts.tolist(), strict=True)):
        steps = min(length, int(dataset.lengths[episode]) - start)
        clip = dataset.read_into(frames[row, :steps], episode, start)
        frames[row, steps:] = frames[row, steps - 1]
        action[row, :steps], reward[row, :steps], terminated[row, :steps] = clip.action, clip.reward, clip.terminated
        valid[row, :steps] = True
        if state is not None and clip.state is not None:
            state[row, :steps], state[row, steps:] = clip.state, clip.state[-1]
    return _to_torch(frames, action, reward, terminated, valid, state)


def _to_torch(
    frames: UInt8[np.ndarray, "B T H W 3"],
    action: Float[np.ndarray, "B T A"],
    reward: Float[np.ndarray, "B T"],
    terminated: Bool[np.ndarray, "B T"],
    valid: Bool[np.ndarray, "B T"],
    state: Float[np.ndarray, "B T S"] | None,
) -> Clips:
    """Wrap the arrays without copying, and replace NaN by masked zeros."""
    action_valid, reward_valid = ~np.isnan(action).any(axis=-1), ~np.isnan(reward)
    action[~action_valid], reward[~reward_valid] = 0, 0
    return Clips(
        frames=torch.from_numpy(frames).permute(0, 1, 4, 2, 3),
        actions=torch.from_numpy(action),
        rewards=torch.from_numpy(reward),
        terminated=torch.from_numpy(terminated),
        valid=torch.from_numpy(valid),
        action_valid=torch.from_numpy(action_valid),
        reward_valid=torch.from_numpy(reward_valid),
        states=None if state is None else torch.from_numpy(state),
    )
