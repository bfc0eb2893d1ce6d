"""Pictures that lie as PNG or JPEG files inside of other files."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from aime.data.importers.interface import MAX_FRAME_BYTES

UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What decoding a damaged picture may raise."""


def decode_picture(content: bytes | memoryview) -> UInt8[np.ndarray, "h w 3"]:
    """A PNG or JPEG file's picture in RGB.

    Raises:
        UNDECODABLE: if it is none, is damaged, or is larger than 64 MB, of which nothing is decoded.
    """
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
        if picture.width * picture.height * 3 > MAX_FRAME_BYTES:
            raise ValueError(f"a picture of {picture.height}x{picture.width}, expected 64 MB at most")
        return np.asarray(picture.convert("RGB"))
