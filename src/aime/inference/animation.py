"""Films as files: animated WebP and GIF, and MP4 where PyAV is installed."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from aime.errors import AimeError

SUFFIXES = (".webp", ".gif", ".mp4")

FRAMES_PER_SECOND = 10

LAST_FRAME_SECONDS = 1.2
"""How long the last frame is shown before a film repeats."""


def check_film_path(path: Path) -> None:
    """Refuse a film that could not be written, before anything is computed.

    Raises:
        AimeError: if the ending is not .webp, .gif or .mp4, or it is .mp4 and PyAV is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        found = path.suffix or "nothing"
        raise AimeError(f"{path}: ends in {found}, expected .webp, .gif or .mp4: give the film one of these endings")
    if path.suffix.lower() == ".mp4" and importlib.util.find_spec("av") is None:
        raise AimeError(
            f"{path}: an MP4 needs PyAV, which is not installed; expected the package 'av': pip install 'aime[video]', "
            "or write a .webp or .gif"
        )


def encode_film(frames: Sequence[Image.Image], suffix: str) -> bytes:
    """The bytes of a film file, `FRAMES_PER_SECOND`.

    Args:
        frames: pictures of one size, with even sides for MP4.
        suffix: .webp, .gif or .mp4, in any case.
    """
    return {".webp": encode_webp, ".gif": encode_gif, ".mp4": encode_mp4}[suffix.lower()](frames)


def encode_webp(frames: Sequence[Image.Image]) -> bytes:
    """Animated WebP; with losses that are hard to see on enlarged pixels, it is a quarter of the exact file."""
    buffer = io.BytesIO()
    durations = _durations(len(frames))
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=durations, quality=85, method=2)
    return buffer.getvalue()


def encode_gif(frames: Sequence[Image.Image]) -> bytes:
    """Animated GIF with one palette of 255 colours for the whole film, so that nothing flickers."""
    sheet = np.concatenate([np.asarray(frame) for frame in frames[:: max(1, len(frames) // 8)]])
    palette = Image.fromarray(sheet).quantize(255, Image.Quantize.MEDIANCUT)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    drawn[0].save(buffer, "GIF", save_all=True, append_images=drawn[1:], duration=_durations(len(drawn)), loop=0)
    return buffer.getvalue()


def encode_mp4(frames: Sequence[Image.Image]) -> bytes:
    """H.264, the one video that every browser and player shows."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND), options={"crf": "16"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def _durations(count: int) -> list[int]:
    each = 1000 // FRAMES_PER_SECOND
    return [each] * (count - 1) + [int(1000 * LAST_FRAME_SECONDS)]
