"""`aime predict`: a film of what a run dreams, beside what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aime.cli.arguments import parse
from aime.cli.options import UnseenClips


@dataclass(frozen=True, kw_only=True)
class PredictOptions(UnseenClips):
    """Draw a film with a row a clip: truth, the single most likely dream, their difference, attention, and samples."""

    out: Path
    """The film to write: FILE.webp, FILE.gif, or FILE.mp4 (with the `video` extra)."""
    samples: int = 4
    """Sampled futures of each clip."""
    clips: int = 3
    """Rows, from different episodes."""
    seed: int = 0
    """Of the sampled futures."""
    attention: Literal["one", "all", "none"] = "one"
    """Tiles of attention, where the model's is not uniform: one over the dream, or all maps, slots and motions in the
    place of difference and samples."""


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
