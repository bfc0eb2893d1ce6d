"""Pictures that are programs, or that are larger than they say."""

from __future__ import annotations

import struct
from pathlib import Path

from reliability.encoding import png, png_text, write_csv, zeros
from reliability.examples import rows_of
from reliability.hostile_kind import Hostile


def _episode(source: Path, pictures: dict[str, bytes]) -> None:
    (source / "0").mkdir()
    for name, content in pictures.items():
        (source / "0" / name).write_bytes(content)
    write_csv(source / "0.csv", rows_of(0, len(pictures)))


def postscript(source: Path, outside: Path) -> None:
    """PostScript by the name of a picture, which Pillow gives to Ghostscript."""
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n({outside}/started) (w) file closefile\nshowpage\n"
    _episode(source, {f"{step}.png": program.encode() for step in range(4)})


def other_picture_format(source: Path, outside: Path) -> None:
    """A format that Pillow reads but nobody asked for, by the name of a PNG file."""
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 16, 16, 24, 0)  # TGA
    _episode(source, {f"{step}.png": header + bytes(16 * 16 * 3) for step in range(4)})


def png_bomb(source: Path, outside: Path) -> None:
    """A PNG file of 3.6 gigapixels."""
    _episode(source, {f"{step}.png": png(60_000, 60_000, zeros(1 << 20)) for step in range(2)})


def png_bomb_of_text(source: Path, outside: Path) -> None:
    """Small pictures with a comment that inflates to 700 MB each."""
    picture = png(32, 32, extra=png_text(700 << 20))
    _episode(source, {f"{step}.png": picture for step in range(4)})


def small_picture_first(source: Path, outside: Path) -> None:
    """One small picture, by which a reader may plan its blocks, and a hundred of 16 megapixels."""
    rows = zeros(4001 * 4000)
    large = {f"{step:03d}.png": png(4000, 4000, rows) for step in range(1, 101)}
    _episode(source, {"000.png": png(16, 16), **large})


def gif_bomb(source: Path, outside: Path) -> None:
    """A GIF film whose screen has 65535 x 65535 pixels."""
    frame = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0" + b"\x02\x02D\x01\0"
    screen = struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + bytes(6)
    (source / "0.gif").write_bytes(b"GIF89a" + screen + frame * 40 + b";")
    write_csv(source / "0.csv", rows_of(0, 40))


PICTURES = {
    "postscript": Hostile(postscript, "pictures"),
    "other-picture-format": Hostile(other_picture_format, "pictures"),
    "png-bomb": Hostile(png_bomb, "pictures"),
    "png-bomb-of-text": Hostile(png_bomb_of_text, "pictures", refused=False),
    "small-picture-first": Hostile(small_picture_first, "pictures"),
    "gif-bomb": Hostile(gif_bomb, "films"),
}
