"""`aime predict`: a film of what a run dreams, beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from aime.cli.arguments import parse


@dataclass(frozen=True)
class PredictOptions:
    """Draw a film with a row a clip: truth, the single most likely dream, their difference, attention, and samples."""

    run: tyro.conf.Positional[Path]
    """The run directory that `aime train` wrote, or bundled:cartpole."""
    out: Path
    """The film to write: FILE.webp, FILE.gif, or FILE.mp4 (with the `video` extra)."""
    data: str | None = None
    """A directory of shards, one shard, or bundled:NAME; several by commas. By default the run's own data. Episodes
    that the run was trained on are left out, wherever they lie."""
    part: Literal["test", "validation", "all"] = "test"
    """The half of the unseen episodes: test for reports, validation for choices."""
    context: int = 5
    """Frames that the model sees."""
    horizon: int = 45
    """Frames that it then predicts."""
    samples: int = 4
    """Sampled futures of each clip."""
    clips: int = 3
    """Rows, from different episodes."""
    seed: int = 0
    """Of the sampled futures."""
    attention: Literal["one", "all", "none"] = "one"
    """Tiles of attention, where the model's is not uniform: one over the dream, or all maps, slots and motions in the
    place of difference and samples."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


def main(arguments: list[str]) -> int:
    """Run `aime predict` and return the exit status."""
    options = parse(PredictOptions, "predict", arguments)
    from aime.inference.filtering import NO_ATTENTION, has_attention
    from aime.inference.predict import predict_run
    from aime.world_model.saved import read_run

    film = predict_run(
        options.run,
        options.data,
        options.out,
        options.context,
        options.horizon,
        samples=options.samples,
        clips=options.clips,
        device=options.device,
        seed=options.seed,
        attention=options.attention,
        part=options.part,
        announce=lambda title: print(f"clips of {title}"),
    )
    if options.attention == "one" and not has_attention(read_run(options.run).model):
        print(NO_ATTENTION)
    print(f"film: {film}")
    return 0
