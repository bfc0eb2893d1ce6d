"""Decoding of pictures, from files or bytes, as a viewer shows them."""

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
"""Format by suffix. Pillow would guess it from the content, and run Ghostscript on PostScript."""

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
"""Exceptions of decoding a damaged picture."""

MAX_FILE_BYTES = 4 * MAX_FRAME_BYTES
"""Maximum bytes of a picture file."""


_WHOLE_RANGE = "16-bit grey pictures, mapped from 0 (black) to 65535 (white); --depth-range sets other limits"


@dataclass(frozen=True)
class Depth:
    """The mapping of 16-bit grey to 8 bits.

    Attributes:
        low: this value and smaller ones become black.
        high: this value and larger ones become white.
        named: whether the user set both; pictures of 8 bits are then refused.
        notes: counts for the report.
    """

    low: float = 0.0
    high: float = 65535.0
    named: bool = False
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, limits: tuple[float, float] | None, notes: Counter[str] | None = None) -> Depth:
        """From the user's limits, or the default."""
        counted = Counter[str]() if notes is None else notes
        return cls(notes=counted) if limits is None else cls(*limits, named=True, notes=counted)

    def grey(self, picture: np.ndarray) -> UInt8[np.ndarray, "h w"]:
        """Convert 16 bits to 8."""
        if not self.named:
            self.notes[_WHOLE_RANGE] += 1
        scaled = (picture.astype(np.float64) - self.low) / (self.high - self.low)
        grey: np.ndarray = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
        return grey


def read_picture(path: Path, depth: Depth, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file.

    Args:
        path: the file; its suffix gives the format.
        depth: mapping of 16-bit grey.
        size: required height and width; any by default.

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
    """Height and width of a displayed picture, from its header.

    Raises:
        BadEpisode: if the header cannot be read, or the picture is too large.
    """
    with opened(path) as file:
        try:
            with open_picture(file.read(MAX_FILE_BYTES), (FORMATS[path.suffix.lower()],)) as picture:
                return _shown_size(picture)
        except UNDECODABLE as error:
            raise BadEpisode(f"{path}: is not a picture ({one_line(error)}); remove it or save it again") from error


def decode_picture(
    content: bytes | memoryview,
    depth: Depth | None = None,
    formats: tuple[str, ...] = ("PNG", "JPEG"),
    size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in RGB as a viewer shows it: with EXIF orientation, transparency blended with black.

    Args:
        content: of the file.
        depth: mapping of 16-bit grey; by default 0 to black and 65535 to white.
        formats: allowed formats, in Pillow's names.
        size: required height and width; any by default.

    Raises:
        UNDECODABLE: if it has another format, is damaged, or is larger than 64 MB.
    """
    with open_picture(content, formats) as picture:
        if size is not None and _shown_size(picture) != size:
            height, width = _shown_size(picture)
            raise ValueError(f"it is {height}x{width}, others are {size[0]}x{size[1]}")
        if picture.format in ("JPEG", "MPO"):
            check_end(bytes(content))
        return _rgb(ImageOps.exif_transpose(picture), depth or Depth())


def open_picture(content: bytes | memoryview, formats: tuple[str, ...]) -> Image.Image:
    """A picture of which only the header is decoded.

    Args:
        content: of the file.
        formats: allowed formats, in Pillow's names.

    Raises:
        UNDECODABLE: if it has another format, is larger than 64 MB, is an animation, or Pillow decodes it wrongly.
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
