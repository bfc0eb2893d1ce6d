"""Films for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def moving_square(length: int, height: int, width: int | None = None, seed: int = 0) -> np.ndarray:
    """`[length, height, width, 3]`: a bright square that moves, a little differently coloured in each frame."""
    width = width or height
    frames = np.full((length, height, width, 3), 30, np.uint8)
    for step in range(length):
        column = (step * 2 + seed) % (width - 8)
        frames[step, 8:16, column : column + 8] = (255, step % 200, 3 * seed)
    return frames


def write_film(path: Path, frames: np.ndarray, codec: str = "ffv1", rate: int = 10) -> None:
    """ffv1 keeps every bit; the codecs of MP4 do not."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode(None))
