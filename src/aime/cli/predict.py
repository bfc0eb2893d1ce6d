"""`aime predict`: a film of true and predicted frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aime.cli.arguments import parse
from aime.cli.options import UnseenClips


@dataclass(frozen=True, kw_only=True)
class PredictOptions(UnseenClips):
    """Make a film with a row per clip: true frames, most likely prediction, difference, attention and samples."""

    out: Path
    """File to write: FILE.webp, FILE.gif, or FILE.mp4 (with the `video` extra)."""
    samples: int = 4
    """Sampled futures per clip."""
    clips: int = 3
    """Number of rows, from different episodes."""
    seed: int = 0
    """Seed of the sampled futures."""
    attention: Literal["one", "all", "none"] = "one"
    """one: the attention map over the prediction.
    all: all maps, slots and motions instead of difference and samples."""


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
