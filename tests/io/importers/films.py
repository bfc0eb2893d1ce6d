"""Films for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
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


def coded(length: int, height: int = 32, width: int = 48) -> np.ndarray:
    """`[length, height, width, 3]`: frames that tell their number by their brightness, which no codec changes much."""
    levels = (20 + 4 * np.arange(length) % 220).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (length, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that `coded` put into frames, up to 54."""
    return np.rint((frames.reshape(len(frames), -1).mean(axis=1) - 20) / 4).astype(int).tolist()


def write_film(
    path: Path,
    frames: np.ndarray,
    codec: str = "ffv1",
    rate: int = 10,
    times: Sequence[float] | None = None,
    matrix: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """ffv1 keeps every bit; the codecs of MP4 do not.

    Args:
        path: whose suffix says the container.
        frames: `[L, H, W, 3]`.
        codec: FFmpeg's name of it.
        rate: frames a second.
        times: when each is shown, in seconds; one after the other by default.
        matrix: the display matrix, of 9 whole numbers.
        options: of the codec.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as film:
        stream = film.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if times is not None:
                picture.time_base, picture.pts = Fraction(1, 1000), round(times[number] * 1000)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
