"""AIME: a probabilistic world model of video and action that you can train, look inside and act with.

from aime import AIME, load_clips

model = AIME.from_pretrained("bundled:cartpole")
clips = load_clips("bundled:cartpole", length=50)
future = model.predict_future(clips.frames[:, :5], clips.actions)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aime.errors import AimeError

if TYPE_CHECKING:
    from aime.data import load_clips
    from aime.world_model.model import AIME

__all__ = ["AIME", "AimeError", "load_clips"]


def __getattr__(name: str) -> Any:
    # imported at first use, so that `aime --help` does not wait for torch
    if name == "AIME":
        from aime.world_model.model import AIME

        return AIME
    if name == "load_clips":
        from aime.data import load_clips

        return load_clips
    raise AttributeError(f"module 'aime' has no attribute '{name}'")
