"""Films that are play lists, session descriptions, or larger than they say."""

from __future__ import annotations

import os
from pathlib import Path

from reliability.encoding import frames_of, write_csv, write_film
from reliability.examples import rows_of
from reliability.hostile_kind import Hostile


def _film(source: Path, content: bytes, name: str = "0.mp4", length: int = 6) -> None:
    (source / name).write_bytes(content)
    write_csv(source / "0.csv", rows_of(0, length))


def sdp(source: Path, outside: Path) -> None:
    """A session description, by which FFmpeg listens for a stream."""
    lines = ("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0", "m=video 5004 RTP/AVP 96")
    _film(source, "\r\n".join([*lines, "a=rtpmap:96 H264/90000", ""]).encode())


def ffconcat(source: Path, outside: Path) -> None:
    """A list of other films, one of which lies outside."""
    write_film(outside / "film.mp4", frames_of(6, 32))
    _film(source, f"ffconcat version 1.0\nfile '{outside}/film.mp4'\nfile ../outside/film.mp4\n".encode())


def hls(source: Path, outside: Path) -> None:
    """A play list with an address and a file."""
    write_film(outside / "film.mp4", frames_of(6, 32))
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/0.ts\n#EXTINF:1,\nfile://{outside}/film.mp4\n"
    _film(source, f"{text}#EXT-X-ENDLIST\n".encode())


def subtitles(source: Path, outside: Path) -> None:
    """A VobSub index. Its reader opens the file of the same name in the same directory."""
    text = "# VobSub index file, v7 (do not modify this line!)\nsize: 720x576\nid: en, index: 0\n"
    _film(source, f"{text}timestamp: 00:00:01:000, filepos: 000000000\n".encode(), "0.mkv")


def small_header(source: Path, outside: Path) -> None:
    """A Matroska file whose header says 16 pixels, while its frames have 6400."""
    path = source / "0.mkv"
    _repeated_jpeg(path, 6400, 60)
    content = path.read_bytes()
    for tag in (b"\xb0\x82", b"\xba\x82"):  # PixelWidth and PixelHeight, of two bytes
        content = content.replace(tag + (6400).to_bytes(2, "big"), tag + (16).to_bytes(2, "big"), 1)
    _film(source, content, "0.mkv", 60)


def _repeated_jpeg(path: Path, size: int, count: int) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as film:
        stream = film.add_stream("mjpeg", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = size, size, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8), format="rgb24")
        packets = [*stream.encode(frame), *stream.encode(None)]
        content = bytes(packets[0])
        for number in range(count):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, packets[0].time_base, number, number
            film.mux(packet)


def fifo(source: Path, outside: Path) -> None:
    """A pipe that nobody writes to, by the name of a film."""
    os.mkfifo(source / "0.mp4")
    write_csv(source / "0.csv", rows_of())


def endless(source: Path, outside: Path) -> None:
    """A link to a device without an end, by the name of a film."""
    (source / "0.mp4").symlink_to("/dev/zero")
    write_csv(source / "0.csv", rows_of())


def no_decoder(source: Path, outside: Path) -> None:
    """A film whose codec no decoder knows."""
    write_film(source / "0.mkv", frames_of(6, 32))
    _film(source, (source / "0.mkv").read_bytes().replace(b"V_MPEG4/", b"V_XPEG4/"), "0.mkv")


FILMS = {
    "sdp": Hostile(sdp, "films"),
    "ffconcat": Hostile(ffconcat, "films"),
    "hls": Hostile(hls, "films"),
    "subtitles": Hostile(subtitles, "films"),
    "small-header": Hostile(small_header, "films"),
    "fifo-film": Hostile(fifo, "films"),
    "endless-film": Hostile(endless, "films"),
    "no-decoder": Hostile(no_decoder, "films"),
}
