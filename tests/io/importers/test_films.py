"""Films as a player shows them, and damage that a decoder conceals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tests.io.importers.films import coded, numbers, write_film

from aime.io.importers.film_damage import Damaged, check_units
from aime.io.importers.interface import BadEpisode
from aime.io.importers.video import film_facts, read_film

av = pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
ONE = 65536


def frames_of(path: Path) -> np.ndarray:
    return np.concatenate([block.frames for block in read_film(path)])


def needs(codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this build of FFmpeg has no {codec}")


def corners() -> np.ndarray:
    """One frame of which no two turned or mirrored copies are alike."""
    frame = np.full((1, 64, 96, 3), 128, np.uint8)
    frame[:, :32, :48], frame[:, :32, 48:] = (255, 0, 0), (0, 0, 255)
    return frame


def shown_by_geometry(frame: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """Every pixel put where the matrix of the container says, one at a time."""
    a, b, _, c, d = (value // ONE for value in matrix[:5])
    height, width = frame.shape[:2]
    places = {(a * x + c * y, b * x + d * y): frame[y, x] for y, x in itertools.product(range(height), range(width))}
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    size = (width, height) if a else (height, width)
    out = np.empty((size[1], size[0], 3), np.uint8)
    for (x, y), colour in places.items():
        out[y - top, x - left] = colour
    return out


EIGHT = [
    (s * ONE * straight, t * ONE * (1 - straight), 0, s * ONE * (1 - straight), t * ONE * straight, 0, 0, 0, 1 << 30)
    for straight in (1, 0)
    for s, t in itertools.product((1, -1), repeat=2)
]


@pytest.mark.parametrize("matrix", EIGHT)
def test_a_film_is_turned_and_mirrored_as_its_header_says(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    needs("libx264")
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write a display matrix")
    frame = corners()
    write_film(tmp_path / "a.mp4", np.repeat(frame, 3, axis=0), "libx264", matrix=matrix)
    found = frames_of(tmp_path / "a.mp4").astype(int)
    expected = shown_by_geometry(frame[0], matrix)
    assert found.shape == (3, *expected.shape)
    assert np.abs(found[1] - expected).mean() < 4


def test_an_angle_that_no_frame_fits_is_refused(tmp_path: Path) -> None:
    needs("libx264")
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write a display matrix")
    half = 46341  # of 45 degrees
    write_film(tmp_path / "a.mp4", coded(3), "libx264", matrix=(half, half, 0, -half, half, 0, 0, 0, 1 << 30))
    with pytest.raises(BadEpisode, match="has a rotation of"):
        frames_of(tmp_path / "a.mp4")


@pytest.mark.parametrize(("aspect", "size"), [((2, 1), (32, 96)), ((1, 2), (64, 48))])
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, aspect: tuple[int, int], size: tuple[int, int]
) -> None:
    import fractions

    with av.open(str(tmp_path / "a.mkv"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(*aspect)
        for frame in coded(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode(None))
    assert frames_of(tmp_path / "a.mkv").shape[1:3] == size


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv444p10le"])
def test_colours_come_back_from_every_matrix_and_range(tmp_path: Path, matrix: str, full: bool, pixels: str) -> None:
    needs("libx264")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    rgb = np.repeat(np.repeat(np.array(colours, np.uint8)[None], 8, axis=0), 8, axis=1)  # 8 rows, 48 columns
    # from the definition (ITU-R BT.709, BT.601), not from FFmpeg
    red, blue = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    weights = np.array([red, 1 - red - blue, blue])
    luma = rgb / 255 @ weights
    chroma = [(rgb[..., 2] / 255 - luma) / (2 - 2 * blue), (rgb[..., 0] / 255 - luma) / (2 - 2 * red)]
    scale = 4 if pixels.endswith("10le") else 1
    top = 256 * scale - 1
    planes = [luma * (top if full else 219 * scale) + (0 if full else 16 * scale)]
    planes += [part * (top if full else 224 * scale) + 128 * scale for part in chroma]
    planar = np.rint(np.clip(np.stack(planes), 0, top)).astype(np.uint16 if scale == 4 else np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 8, 48, pixels
        context, number = stream.codec_context, 1 if matrix == "bt709" else 6
        context.colorspace, context.color_range = number, 2 if full else 1
        for step in range(2):
            frame = av.VideoFrame(48, 8, pixels)
            for plane, values in zip(frame.planes, planar, strict=True):
                rows = np.zeros((8, plane.line_size // values.itemsize), values.dtype)
                rows[:, :48] = values
                plane.update(rows.tobytes())
            frame.colorspace, frame.color_range, frame.pts = number, 2 if full else 1, step
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    found = frames_of(tmp_path / "a.mp4")[0].astype(int)
    assert np.abs(found - rgb).max() <= 3


def textured(length: int) -> np.ndarray:
    """Frames that give a codec something to do."""
    tiles = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    return np.stack([np.roll(tiles, (step, 2 * step), (0, 1)) for step in range(length)])


CODECS = [
    ("libx264", ".mp4"),
    ("libx264", ".mkv"),
    ("libx265", ".mp4"),
    ("libvpx-vp9", ".webm"),
    ("libvpx", ".webm"),
    ("libsvtav1", ".mp4"),
    ("mpeg4", ".mp4"),
    ("mjpeg", ".avi"),
    ("ffv1", ".mkv"),
]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    place = tmp_path_factory.mktemp("films")
    made = {}
    for codec, suffix in CODECS:
        if codec in av.codecs_available:
            made[codec, suffix] = place / f"{codec}{suffix}"
            options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            write_film(made[codec, suffix], textured(40), codec, options=options)
    return made


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_a_block_that_never_reached_the_disk_is_found(
    tmp_path: Path, films: dict[tuple[str, str], Path], codec: str, suffix: str
) -> None:
    needs(codec)
    sound = films[codec, suffix]
    assert len(frames_of(sound)) == 40
    content = bytearray(sound.read_bytes())
    for place in (len(content) // 3, len(content) // 2):
        damaged = bytearray(content)
        damaged[place : place + 512] = bytes(512)
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(damaged)
        with pytest.raises(BadEpisode, match="cannot be decoded"):
            frames_of(path)


@pytest.mark.parametrize(
    ("codec", "suffix"), [pair for pair in CODECS if pair[0] not in ("libx265", "libvpx", "mjpeg")]
)
def test_most_flipped_bytes_are_found(
    tmp_path: Path, films: dict[tuple[str, str], Path], codec: str, suffix: str
) -> None:
    needs(codec)
    sound, random, missed = films[codec, suffix], np.random.default_rng(1), 0
    truth, path = frames_of(sound).astype(int), tmp_path / f"damaged{suffix}"
    for _ in range(8):
        damaged = bytearray(sound.read_bytes())
        for place in random.integers(len(damaged) // 5, len(damaged) * 4 // 5, 12):
            damaged[place] ^= 255
        path.write_bytes(damaged)
        try:
            missed += np.abs(frames_of(path) - truth).mean(axis=(1, 2, 3)).max() > 2
        except BadEpisode:
            continue
    assert missed <= (0 if codec in ("libvpx-vp9", "libsvtav1", "ffv1") else 1)


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_a_film_that_breaks_off_is_found(
    tmp_path: Path, films: dict[tuple[str, str], Path], codec: str, suffix: str
) -> None:
    needs(codec)
    content = films[codec, suffix].read_bytes()
    (tmp_path / f"short{suffix}").write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(BadEpisode, match="cannot be decoded"):
        frames_of(tmp_path / f"short{suffix}")


def test_bytes_that_a_unit_must_not_hold() -> None:
    unit = bytes([5, 1, 2, 0, 0, 3, 1, 9])
    check_units(len(unit).to_bytes(4, "big") + unit, 4)
    for wrong in (bytes([5, 0, 0, 0, 9]), bytes([5, 0, 0, 1, 9]), bytes([5, 0, 0, 3, 9]), bytes([5] + [0] * 40)):
        with pytest.raises(Damaged):
            check_units(len(wrong).to_bytes(4, "big") + wrong, 4)
    with pytest.raises(Damaged, match="longer"):
        check_units((9).to_bytes(4, "big") + unit, 4)


def test_a_film_is_what_its_name_says_and_opens_nothing_else(tmp_path: Path) -> None:
    write_film(tmp_path / "other.mkv", coded(5))
    for name, text in {
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "concat.mkv": "ffconcat version 1.0\nfile other.mkv\n",
        "playlist.mp4": "#EXTM3U\n#EXTINF:1,\nother.mkv\n#EXT-X-ENDLIST\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadEpisode, match="cannot be decoded"):
            frames_of(tmp_path / name)
    (tmp_path / "renamed.mp4").write_bytes((tmp_path / "other.mkv").read_bytes())
    with pytest.raises(BadEpisode, match=r"expected a whole \.mp4 file"):
        frames_of(tmp_path / "renamed.mp4")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "directory.mp4").mkdir()
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "missing")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    for name, words in (
        ("pipe", "is a pipe"),
        ("directory", "is a directory"),
        ("nowhere", "does not exist"),
        ("device", "is a device"),
    ):
        with pytest.raises(BadEpisode, match=words):
            film_facts(tmp_path / f"{name}.mp4")


def test_times_are_those_of_the_film(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.25, 0.3, 0.7]
    write_film(tmp_path / "a.mkv", coded(5), times=times)
    block = next(read_film(tmp_path / "a.mkv"))
    np.testing.assert_allclose(block.times, times, atol=1e-3)
    assert numbers(block.frames) == [0, 1, 2, 3, 4]


def glass() -> list[Image.Image]:
    """Frames that are opaque on the left, half or wholly transparent on the right, and red everywhere."""
    frames = []
    for step in range(3):
        rgba = np.full((32, 32, 4), (200, 30 + 40 * step, 10, 255), np.uint8)
        rgba[:, 16:, 3] = (0, 128, 0)[step]
        frames.append(Image.fromarray(rgba))
    return frames


def over_black(picture: Image.Image) -> np.ndarray:
    """As Pillow lays it over black."""
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture).convert("RGB"))


@pytest.mark.parametrize(("name", "codec", "pixels"), [("a.mov", "png", "rgba"), ("a.mkv", "ffv1", "bgra")])
def test_what_is_transparent_lies_over_black(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    needs(codec)
    with av.open(str(tmp_path / name), "w") as film:
        stream = film.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
        for picture in glass():
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgba")))
        film.mux(stream.encode())
    expected = np.stack([over_black(picture) for picture in glass()])
    assert np.abs(frames_of(tmp_path / name).astype(int) - expected).max() <= 1


def test_a_gif_with_nothing_in_places_shows_black_there(tmp_path: Path) -> None:
    pictures = [glass()[0], glass()[2]]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    with Image.open(tmp_path / "a.gif") as gif:
        expected = np.stack([over_black(each.convert("RGBA")) for each in ImageSequence.Iterator(gif)])
    assert (expected[:, :, 16:] == 0).all() and (expected[:, :, :16] > 0).any()
    assert np.abs(frames_of(tmp_path / "a.gif").astype(int) - expected).max() <= 1


def test_transparency_that_is_not_decoded_is_refused(tmp_path: Path) -> None:
    needs("libvpx-vp9")
    with av.open(str(tmp_path / "a.webm"), "w") as film:
        stream = film.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for picture in glass():
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgba")))
        film.mux(stream.encode())
    with pytest.raises(BadEpisode, match="has transparency that FFmpeg does not decode"):
        frames_of(tmp_path / "a.webm")
