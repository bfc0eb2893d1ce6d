"""Pictures in files of their own, or inside of other files, as a viewer shows them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from aime.errors import one_line
from aime.io.importers.files import opened
from aime.io.importers.interface import MAX_FRAME_BYTES, BadEpisode
from aime.io.importers.jpeg_damage import check_end

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}
"""The format that a file's name promises. Pillow would guess it from the content, and run Ghostscript on PostScript."""

UNDECODABLE = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What decoding a damaged picture may raise."""

MAX_FILE_BYTES = 4 * MAX_FRAME_BYTES
"""A larger file is no picture of at most 64 MB."""


_WHOLE_RANGE = "pictures of 16-bit grey, black for 0 and white for 65535: --depth-range names other limits"


@dataclass(frozen=True)
class Depth:
    """How the 65536 greys of a 16-bit picture become 256.

    Attributes:
        low: what becomes black, in the picture's own numbers; smaller numbers do as well.
        high: what becomes white; greater numbers do as well.
        named: whether the user named both. A picture of 8 bits is then refused.
        notes: counts what the report shall say.
    """

    low: float = 0.0
    high: float = 65535.0
    named: bool = False
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, limits: tuple[float, float] | None, notes: Counter[str] | None = None) -> Depth:
        """From the two numbers that the user named, or neither."""
        counted = Counter[str]() if notes is None else notes
        return cls(notes=counted) if limits is None else cls(*limits, named=True, notes=counted)

    def grey(self, picture: np.ndarray) -> UInt8[np.ndarray, "h w"]:
        """From 16 bits to 8."""
        if not self.named:
            self.notes[_WHOLE_RANGE] += 1
        scaled = (picture.astype(np.float64) - self.low) / (self.high - self.low)
        grey: np.ndarray = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
        return grey


def read_picture(path: Path, depth: Depth, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file.

    Args:
        path: the file; its suffix says what it is.
        depth: how 16-bit grey is shown.
        size: height and width that it must have; any by default.

    Raises:
        BadEpisode: if it cannot be opened, is damaged, too large, or has another size.
    """
    with opened(path) as file:
        try:
            return decode_picture(file.read(MAX_FILE_BYTES), depth, (FORMATS[path.suffix.lower()],), size)
        except UNDECODABLE as error:
            raise BadEpisode(
                f"{path}: cannot be decoded ({one_line(error)}), expected a whole {path.suffix} picture; save it again"
            ) from error


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of the picture in a file, from its header, as it is shown.

    Raises:
        BadEpisode: if it has no header that can be read, or the picture is too large.
    """
    with opened(path) as file:
        try:
            with open_picture(file.read(MAX_FILE_BYTES), (FORMATS[path.suffix.lower()],)) as picture:
                return _shown_size(picture)
        except UNDECODABLE as error:
            raise BadEpisode(f"{path}: is no picture ({one_line(error)}); remove it or save it again") from error


def decode_picture(
    content: bytes | memoryview,
    depth: Depth | None = None,
    formats: tuple[str, ...] = ("PNG", "JPEG"),
    size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in RGB as viewers show it: turned as its EXIF data says, what is transparent over black.

    Args:
        content: of a picture's file.
        depth: how 16-bit grey is shown; black for 0 and white for 65535 by default.
        formats: Pillow's names of those that it may have.
        size: height and width that it must have; any by default.

    Raises:
        UNDECODABLE: if it is none of them, is damaged, or is larger than 64 MB, of which nothing is decoded.
    """
    with open_picture(content, formats) as picture:
        if size is not None and _shown_size(picture) != size:
            height, width = _shown_size(picture)
            raise ValueError(f"it is {height}x{width}, others are {size[0]}x{size[1]}")
        if picture.format in ("JPEG", "MPO"):
            check_end(bytes(content))
        return _rgb(ImageOps.exif_transpose(picture), depth or Depth())


def open_picture(content: bytes | memoryview, formats: tuple[str, ...]) -> Image.Image:
    """A picture of which nothing but the header is decoded.

    Args:
        content: of a picture's file.
        formats: Pillow's names of those that it may have.

    Raises:
        UNDECODABLE: if it is none of them, is larger than 64 MB, is an animation, or Pillow shows it wrongly.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(content), formats=formats)
        except UnidentifiedImageError as error:
            raise ValueError(f"its content is no {' or '.join(formats)}, or damaged from the start") from error
    if picture.width * picture.height * 3 > MAX_FRAME_BYTES:
        raise ValueError(f"a picture of {picture.height}x{picture.width}, expected 64 MB at most")
    if picture.format in ("PNG", "WEBP") and getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"an animation of {getattr(picture, 'n_frames', 0)} pictures, expected one")
    if "transparency" in picture.info and any("16B" in str(tile.args) for tile in picture.tile):
        # Pillow compares 8 bits with 16
        raise ValueError("16 bits with one colour that is transparent, expected 8 bits or an alpha channel")
    return picture


def _shown_size(picture: Image.Image) -> tuple[int, int]:
    turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _rgb(picture: Image.Image, depth: Depth) -> UInt8[np.ndarray, "h w 3"]:
    if picture.mode.startswith("I"):
        return np.repeat(depth.grey(np.asarray(picture))[..., None], 3, axis=2)
    if depth.named:
        raise ValueError(f"a picture of mode {picture.mode}, expected grey of 16 bits for --depth-range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return np.asarray(picture.convert("RGB"))
