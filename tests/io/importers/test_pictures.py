"""Pictures of every mode as viewers show them, and damage that libjpeg conceals."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aime.io.importers.interface import BadEpisode
from aime.io.importers.jpeg_damage import check_end
from aime.io.importers.pictures import Depth, decode_picture, picture_size, read_picture

PLAIN = Depth()


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


# how EXIF 2.3 (tag 0x0112) places the rows and columns of the file on the screen
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_turns_a_picture(tmp_path: Path, orientation: int) -> None:
    stored = smooth(24, 40)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = TURNED[orientation](stored)
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(stored), exif=exif))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", PLAIN), expected)
    assert picture_size(tmp_path / "a.png") == expected.shape[:2]
    jpeg = decode_picture(saved(Image.fromarray(stored), "JPEG", quality=98, exif=exif)).astype(int)
    assert np.abs(jpeg - expected).mean() < 8


def test_sixteen_bits_become_eight_over_the_whole_range_or_the_one_named() -> None:
    depths = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    content = saved(Image.fromarray(depths))
    counted = Depth()
    np.testing.assert_array_equal(decode_picture(content, counted)[..., 0], np.rint(depths / 257))
    assert sum(counted.notes.values()) == 1
    millimetres = Depth.of((500, 4500))
    expected = np.clip((depths.astype(float) - 500) / 4000, 0, 1) * 255
    np.testing.assert_allclose(decode_picture(content, millimetres)[..., 1], expected, atol=0.5)
    with pytest.raises(ValueError, match="expected grey of 16 bits for --depth-range"):
        decode_picture(saved(Image.fromarray(smooth(8, 8))), millimetres)


def test_what_is_transparent_lies_over_black() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., :3] = (0, 200, 100)
    pixels[2:4, :, 3], pixels[4:, :, 3] = 128, 255
    shown = np.rint(pixels[..., :3] * (pixels[..., 3:] / 255))
    np.testing.assert_allclose(decode_picture(saved(Image.fromarray(pixels))), shown, atol=1)
    grey = Image.fromarray(np.ascontiguousarray(pixels[..., [1, 3]]), "LA")
    np.testing.assert_allclose(decode_picture(saved(grey)), shown[..., 1:2].repeat(3, axis=2), atol=1)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    found = decode_picture(saved(palette, transparency=0))
    assert found[0, 0].tolist() == [0, 0, 0] and found[1, 1].tolist() == [0, 255, 0]
    key = decode_picture(saved(Image.fromarray(np.full((2, 2, 3), (9, 8, 7), np.uint8)), transparency=(9, 8, 7)))
    assert not key.any()


def test_other_modes_become_rgb() -> None:
    bits = np.eye(8, dtype=bool)
    assert decode_picture(saved(Image.fromarray(bits)))[0, 0].tolist() == [255, 255, 255]
    grey = smooth(8, 8)[..., 0]
    np.testing.assert_array_equal(decode_picture(saved(Image.fromarray(grey)))[..., 2], grey)
    rgb = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    assert np.abs(decode_picture(saved(cmyk, "JPEG", quality=98)).astype(int) - rgb).max() < 8


def test_a_picture_is_what_its_name_says(tmp_path: Path) -> None:
    post = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(post)
    (tmp_path / "b.png").write_bytes(saved(Image.fromarray(smooth(8, 8)), "JPEG"))
    for name in ("a.png", "b.png"):
        with pytest.raises(BadEpisode, match=r"is not a picture"):
            picture_size(tmp_path / name)
        with pytest.raises(BadEpisode, match=r"cannot be decoded .*expected a whole \.png"):
            read_picture(tmp_path / name, PLAIN)


def test_large_and_moving_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    header = b"IHDR" + (40_000).to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    small = saved(Image.new("1", (8, 8)))
    large = small[:8] + chunk + small[8 + len(chunk) :]
    with pytest.raises((ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        decode_picture(large)
    frames = [Image.fromarray(smooth(8, 8, seed)) for seed in range(3)]
    with pytest.raises(ValueError, match="an animation of 3"):
        decode_picture(saved(frames[0], save_all=True, append_images=frames[1:]))
    (tmp_path / "a.png").write_bytes(saved(frames[0]))
    with pytest.raises(BadEpisode, match="it is 8x8, others are 8x9"):
        read_picture(tmp_path / "a.png", PLAIN, size=(8, 9))


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 4}, {"progressive": True}])
def test_sound_jpeg_pictures_are_taken(options: dict[str, object]) -> None:
    for size, quality, subsampling in (((64, 64), 75, 2), ((97, 65), 50, 1), ((33, 129), 95, 0), ((8, 8), 10, 2)):
        for pixels in (smooth(*size), np.zeros((*size, 3), np.uint8), np.full((*size, 3), 128, np.uint8)):
            for mode in ("RGB", "L"):
                picture = Image.fromarray(pixels).convert(mode)
                check_end(saved(picture, "JPEG", quality=quality, subsampling=subsampling, **options))


def test_most_zeroed_blocks_of_jpeg_pictures_are_found() -> None:
    random, missed = np.random.default_rng(0), 0
    noise = random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "JPEG", quality=75)
    truth = decode_picture(content).astype(int)
    for place in random.integers(700, len(content) - 520, 20):
        damaged = content[:place] + bytes(512) + content[place + 512 :]
        try:
            missed += np.abs(decode_picture(damaged) - truth).mean() > 1
        except (ValueError, OSError):
            continue
    assert missed == 0


@pytest.mark.parametrize(("kind", "samples"), [(0, 1), (2, 3)])
def test_one_transparent_colour_of_16_bits_is_refused(tmp_path: Path, kind: int, samples: int) -> None:
    # PNG 1.2, 11.2.2 and 11.3.2.1: a colour of this kind is compared in all of its 16 bits
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, kind, 0, 0, 0)
    shown, hidden = (struct.pack(f">{samples}H", *[value] * samples) for value in (40 * 257, 40))
    parts = [(b"IHDR", header), (b"tRNS", hidden), (b"IDAT", zlib.compress(b"\0" + 2 * shown)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    with pytest.raises(BadEpisode, match="16 bits with one colour that is transparent"):
        read_picture(tmp_path / "a.png", PLAIN)


def test_another_content_than_the_name_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(Image.new("RGB", (4, 4)), "JPEG"))
    with pytest.raises(BadEpisode, match=r"a\.png: is not a picture \(its content is no PNG, or damaged"):
        picture_size(tmp_path / "a.png")
