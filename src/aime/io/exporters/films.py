"""Writing episodes as MP4 files with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from aime.io.importers.video import pyav


def write_film(path: Path, frames: UInt8[np.ndarray, "L H W 3"], fps: float) -> None:
    """Write an MP4 file in a widely supported, lossy format.

    Raises:
        AimeError: if PyAV is not installed.
    """
    av = pyav()
    path.parent.mkdir(parents=True, exist_ok=True)
    # H.264 if this build of FFmpeg has it; a key frame every other frame allows fast random access
    codec, options = (
        ("libx264", {"crf": "18", "g": "2"}) if _has(av, "libx264") else ("mpeg4", {"qscale": "2", "g": "2"})
    )
    with av.open(str(path), "w") as film:
        # standard rates as fractions: 30000/1001 and not 29.97
        stream = film.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        film.mux(stream.encode(None))


def _has(av: object, codec: str) -> bool:
    available: set[str] = getattr(av, "codecs_available", set())
    return codec in available
