"""A film of what a run predicts, next to the true frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from aime.data.clips import clip_seeds, read_clips
from aime.errors import AimeError
from aime.inference.animation import check_film_path, encode_film
from aime.inference.dreams import Dreams, dream
from aime.inference.filtering import NO_ATTENTION, AttentionMaps, filter_clips, has_attention
from aime.inference.loading import load_run, moving_clip_starts
from aime.inference.render import Strip, film, scale_for
from aime.inference.strips import dream_strips, dreamt_strip, look_strips, map_strips
from aime.inference.unseen import Part, open_unseen
from aime.primitives.files import write_atomically
from aime.primitives.hardware import Device

Shown = Literal["one", "all", "none"]
"""How many tiles of attention a film has."""

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
    attention: Shown = "one",
    part: Part = "test",
    announce: Callable[[str], None] = lambda title: None,
) -> Path:
    """Write a film, a row a clip: truth | most likely | difference | attention | sample 1 | sample 2 | ...

    The samples are drawn from the model, and the difference is that of the most likely future and the truth. Attention
    lies over the most likely future: the fused map where frames were seen, then the prior map, each from the one
    before; a model with uniform attention has none. Frames that the model saw are marked.

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
        seed: of the samples; with it and its episode's content each clip has a seed of its own.
        attention: "one" tile of it, "none", or "all" in place of difference and samples: attention on the
            true frames and on the predicted ones, slots, the expected, bottom-up and fused maps, and their motion.
        part: of the episodes that the run was never trained on: "test", "validation" or "all".
        announce: called with the name of the data and `Unseen.title`, before anything is drawn.

    Returns:
        The path of the film.

    Raises:
        AimeError: if `run` is no run, if `data` is missing, damaged, too short or does not fit the model, if a number
            is below 1, if all attention is asked of a model whose attention is uniform, if `out` has another ending,
            needs PyAV and there is none, or cannot be written.
    """
    out = Path(out)
    check_film_path(out)
    for name, value in (("samples", samples), ("clips", clips)):
        if value < 1:
            raise AimeError(f"{name} is {value}; expected 1 or more: leave --{name} out for the usual number")
    info, model = load_run(run, device)
    if attention == "all" and not has_attention(info.model):
        raise AimeError(f"attention is all; expected one or none for {info.path}: {NO_ATTENTION}")
    unseen = open_unseen(info, data, context, horizon, part)
    announce(f"{unseen.dataset.name} ({unseen.title})")
    places = moving_clip_starts(unseen.dataset, context + horizon, clips)
    chosen = read_clips(unseen.dataset, places, context + horizon)
    dreams = dream(model, chosen, context, samples, clip_seeds(unseen.dataset, places, seed))
    maps = filter_clips(model, chosen).attention if attention != "none" else None
    scale = scale_for(unseen.dataset.image_size, TILE)
    write_atomically(out, encode_film(film(film_strips(dreams, maps, attention), context, scale), out.suffix))
    return out


def film_strips(dreams: Dreams, maps: AttentionMaps | None = None, attention: Shown = "one") -> list[list[Strip]]:
    """The tiles of each clip's row of a film.

    Args:
        dreams: of B clips.
        maps: where the model attends in them; None where attention is uniform.
        attention: see `predict_run`; without `maps` it is as "none".
    """
    return [_row(dreams, maps, attention, clip) for clip in range(dreams.clips)]


def _row(dreams: Dreams, maps: AttentionMaps | None, attention: Shown, clip: int) -> list[Strip]:
    truth = Strip("truth", dreams.truth[clip], dreamt=False)
    dreamt, difference, *samples = dream_strips(dreams, clip, dreams.samples.shape[1])
    if maps is None or attention == "none":
        return [truth, dreamt, difference, *samples]
    if attention == "one":
        return [truth, dreamt, difference, dreamt_strip(dreams, maps, clip), *samples]
    scale = scale_for(dreams.truth.shape[2], TILE)
    return [truth, dreamt, *look_strips(dreams, maps, clip), *map_strips(dreams, maps, clip, scale)]
