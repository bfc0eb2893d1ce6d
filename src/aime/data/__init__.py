"""Episodes on disk and in memory: shards, data sets, clips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aime.data.bundled import bundled_names, bundled_path
from aime.data.dataset import Dataset
from aime.data.episodes import Episode
from aime.data.opening import open_dataset
from aime.data.pack_writer import pack
from aime.data.shards import Attribute, Shard, write_shard
from aime.data.splitting import Split

if TYPE_CHECKING:
    from aime.data.clips import Clips, ClipSampler, load_clips, prefetch

__all__ = [
    "Attribute",
    "ClipSampler",
    "Clips",
    "Dataset",
    "Episode",
    "Shard",
    "Split",
    "bundled_names",
    "bundled_path",
    "load_clips",
    "open_dataset",
    "pack",
    "prefetch",
    "write_shard",
]


def __getattr__(name: str) -> Any:
    # imported late: clips import torch (200 MB, two seconds), which processes that only write shards do not need
    if name in ("Clips", "ClipSampler", "load_clips", "prefetch"):
        from aime.data import clips

        return getattr(clips, name)
    raise AttributeError(f"module 'aime.data' has no attribute '{name}'")
