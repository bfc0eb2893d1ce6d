"""Converts decoded video frames to what a player shows: upright, square pixels, RGB."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from aime.io.importers.interface import MAX_FRAME_BYTES, BadEpisode

_ONE = 65536
"""1.0 in the fixed-point format of a display matrix."""


@dataclass(frozen=True)
class Shown:
    """How all frames of a video are displayed.

    Attributes:
        path: the file, for messages.
        size: height and width of a coded frame.
        square: height and width with square pixels, before rotation.
        transposed: whether rows and columns are exchanged.
        upside_down: whether the result is mirrored vertically.
        mirrored: whether it is mirrored horizontally.
        transparent: whether frames have an alpha channel.
    """

    path: Path
    size: tuple[int, int]
    square: tuple[int, int]
    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False
    transparent: bool = False

    @classmethod
    def of(cls, path: Path, frame: Any, aspect: Fraction | None, codec: str = "") -> Shown:
        """From the first frame of a video.

        Args:
            path: the file.
            frame: PyAV's.
            aspect: width of a pixel divided by its height; None if unknown.
            codec: name in FFmpeg.

        Raises:
            BadEpisode: if frames are too large, or the rotation is not a multiple of 90 degrees.
        """
        height, width = frame.height, frame.width
        ratio = float(aspect) if aspect else 1.0
        if not 0.05 <= ratio <= 20:
            ratio = 1.0
        # the side with too few pixels is enlarged
        square = (height, round(width * ratio)) if ratio >= 1 else (round(height / ratio), width)
        for rows, columns in ((height, width), square):
            if rows * columns * 3 > MAX_FRAME_BYTES:
                raise BadEpisode(f"{path}: has frames of {rows}x{columns}, expected 64 MB at most; reduce them")
        # the fourth byte of uncompressed pixels is unused
        transparent = codec != "rawvideo" and _has_alpha(frame.format)
        return cls(path, (height, width), square, *_orientation(path, frame), transparent)

    def picture(self, frame: Any) -> UInt8[np.ndarray, "h w 3"]:
        """One frame in RGB, 0 to 255, with its colour matrix and range applied.

        Raises:
            BadEpisode: if its size differs from the first frame.
        """
        if (frame.height, frame.width) != self.size:
            first = f"{self.size[0]}x{self.size[1]}"
            raise BadEpisode(
                f"{self.path}: frames change from {first} to {frame.height}x{frame.width}, expected one size; cut it"
            )
        height, width = self.square
        frame = _over_black(frame) if self.transparent else frame
        rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
        if self.transposed:
            rgb = rgb.swapaxes(0, 1)
        rows, columns = slice(None, None, -1 if self.upside_down else 1), slice(None, None, -1 if self.mirrored else 1)
        picture: np.ndarray = np.ascontiguousarray(rgb[rows, columns])
        return picture


def _has_alpha(pixels: Any) -> bool:
    return pixels.has_palette or any(component.is_alpha for component in pixels.components)


def _over_black(frame: Any) -> Any:
    """The frame blended with black; FFmpeg's RGB has the colours of transparent pixels."""
    rgba = frame.reformat(format="rgba", interpolation="BICUBIC").to_ndarray()
    rgb = (rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255
    return type(frame).from_ndarray(rgb.astype(np.uint8), format="rgb24")


def _orientation(path: Path, frame: Any) -> tuple[bool, bool, bool]:
    """Transposed, upside down, mirrored, from the display matrix (x, y) -> (a x + c y, b x + d y)."""
    matrix = next((bytes(data)[:36] for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(matrix, "=i4"))
    small = _ONE // 100
    if max(abs(b), abs(c)) < small < min(abs(a), abs(d)):
        return False, d < 0, a < 0
    if max(abs(a), abs(d)) < small < min(abs(b), abs(c)):
        return True, b < 0, c < 0
    degrees = -frame.rotation
    raise BadEpisode(f"{path}: has a rotation of {degrees} degrees, expected 0, 90, 180 or 270; rotate its frames")
