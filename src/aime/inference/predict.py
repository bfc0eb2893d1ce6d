"""A film of what a run predicts, beside what happened."""

from __future__ import annotations

from pathlib import Path

from aime.errors import AimeError
from aime.inference.animation import check_film_path, encode_film
from aime.inference.dreams import Dreams, dream
from aime.inference.loading import Device, lively_clips, load_run, open_unseen
from aime.inference.render import Strip, film, heat, scale_for
from aime.primitives.files import write_atomically

TILE = 128
"""Screen pixels that a frame is enlarged to, about."""


def predict_run(
    run: str | Path,
    data: str | Path | None,
    out: str | Path,
    context: int = 5,
    horizon: int = 45,
    samples: int = 4,
    clips: int = 3,
    device: Device = "auto",
    seed: int = 0,
) -> Path:
    """Write a film, a row a clip: truth | dream | difference | sample 1 | sample 2 | ...

    The dream is the single most likely future, the samples are others that the model holds possible, and the difference
    is that of dream and truth. Frames that the model saw are marked.

    Args:
        run: the run directory.
        data: a directory of shards, one shard or bundled:NAME; None for the run's own data. The episodes are those that
            `evaluate_run` takes.
        out: the film, FILE.webp, FILE.gif or FILE.mp4; one that is there is replaced.
        context: frames that the model sees, 1 or more.
        horizon: frames that it then predicts, 1 or more.
        samples: sampled futures of each clip, 1 or more.
        clips: at most so many clips, from different episodes.
        device: where to compute.
        seed: of the samples.

    Returns:
        The path of the film.

    Raises:
        AimeError: if `run` is no run, if `data` is missing, damaged, too short or does not fit the model, if a number
            is below 1, if `out` has another ending, needs PyAV and there is none, or cannot be written.
    """
    out = Path(out)
    check_film_path(out)
    for name, value in (("samples", samples), ("clips", clips)):
        if value < 1:
            raise AimeError(f"{name} is {value}; expected 1 or more: leave --{name} out for the usual number")
    info, model = load_run(run, device)
    unseen = open_unseen(info, data, context, horizon)
    chosen = lively_clips(unseen.dataset, context + horizon, clips)
    dreams = dream(model, chosen, context, samples, seed)
    scale = scale_for(unseen.dataset.image_size, TILE)
    write_atomically(out, encode_film(film(film_strips(dreams), context, scale), out.suffix))
    return out


def film_strips(dreams: Dreams) -> list[list[Strip]]:
    """The tiles of each clip's row of a film: truth, dream, difference, samples."""
    difference = heat(dreams.difference)
    return [
        [
            Strip("truth", dreams.truth[clip], dreamt=False),
            Strip("dream", dreams.likeliest[clip]),
            Strip("difference", difference[clip]),
            *(Strip(f"sample {number}", sample) for number, sample in enumerate(dreams.samples[clip], start=1)),
        ]
        for clip in range(dreams.clips)
    ]
