"""Detection of damage in videos, by strict decoding and by checks of the codecs' syntax.

Only FFV1 has checksums of pictures, so not all damage can be detected. Strict decoding detects most of it in H.264 and
MPEG-4. In AV1 and VP9 the padding at the end of each tile is valid only if the tile was decoded correctly. In H.264 and
HEVC three zero bytes cannot occur within a unit, so that lost blocks are detected. A changed bit in HEVC, VP8, Motion
JPEG or GIF often decodes to a valid picture.
"""

from __future__ import annotations

import re
from typing import Any

from aime.io.importers.interface import MAX_FRAME_BYTES
from aime.io.importers.jpeg_damage import check_end

MAX_PIXELS = MAX_FRAME_BYTES // 3

STRICT = {
    "err_detect": "crccheck+bitstream+buffer+explode",
    "strict": "strict",
    "max_pixels": str(MAX_PIXELS),
    "threads": "1",
}
"""Decoder options: stop at the first error, and do not allocate frames that are too large."""

ERROR_LEVEL = 16
"""FFmpeg's log level for errors."""

_FORBIDDEN = re.compile(rb"\x00\x00(?:[\x00-\x02]|\x03[\x04-\xff])")
_MOST_TRAILING_ZEROS = 16
_LOST_BLOCK = bytes(384)
"""Zeros in a row that VP8's arithmetic coder does not write, even for still pictures."""

ONE_FRAME_A_PACKET = ("h264", "hevc", "mpeg4", "mjpeg", "ffv1", "png", "av1", "libdav1d", "vp9", "gif")
"""Codecs (FFmpeg's names) with one frame per packet."""


class Damaged(ValueError):
    """A video violates its codec's syntax, or is incomplete."""


class PacketChecks:
    """Checks of a stream's packets before decoding, and of their number after it.

    Args:
        av: PyAV.
        film: the container.
        stream: the video stream.
        whole: whether all packets are read.
    """

    def __init__(self, av: Any, film: Any, stream: Any, whole: bool) -> None:
        self._film, self._stream, self._whole = film, stream, whole
        self._codec = stream.codec_context.name
        self._prefix = _length_bytes(self._codec, stream.codec_context.extradata)
        self._reference = _reference_decoder(av, self._codec)
        self._packets = self._shown = 0

    def check(self, packet: Any) -> None:
        """Check one packet.

        Raises:
            Damaged: if its encoder cannot have written it.
        """
        if packet.size == 0:
            return
        self._packets += 1
        self._shown += not packet.is_discard
        if packet.is_corrupt:
            raise Damaged("a packet is damaged")
        if self._prefix:
            check_units(bytes(packet), self._prefix)
        if self._codec == "vp8" and _LOST_BLOCK in bytes(packet).rstrip(b"\0"):
            raise Damaged("a packet holds a block of zeros")
        if self._codec == "mjpeg":
            _check_jpeg(bytes(packet))
        if self._reference is not None:
            for frame in self._reference.decode(packet):
                if frame.width * frame.height > MAX_PIXELS:
                    raise Damaged(f"a frame of {frame.height}x{frame.width}")

    def check_number(self, frames: int, end: float | None, period: float) -> None:
        """Compare the number of decoded frames with the container's data.

        Args:
            frames: number of decoded frames.
            end: end of the last frame in seconds.
            period: seconds per frame.

        Raises:
            Damaged: if frames are missing.
        """
        if not self._whole:
            return
        declared = _declared_packets(self._film, self._stream)
        if declared and self._packets < declared:
            raise Damaged(f"it holds {self._packets} frames of {declared}")
        if self._codec in ONE_FRAME_A_PACKET and frames < self._shown:
            raise Damaged(f"{frames} of {self._shown} frames can be decoded")
        seconds = _declared_seconds(self._film, self._stream)
        if seconds is not None and end is not None and end < seconds - 1.5 * period - 1e-3:
            raise Damaged(f"it ends at {end:.2f} seconds of {seconds:.2f}")


def _check_jpeg(packet: bytes) -> None:
    try:
        check_end(packet)
    except (OSError, SyntaxError):
        return  # without Huffman tables, as in AVI, Pillow cannot read it


def _length_bytes(codec: str, extradata: bytes | None) -> int:
    """Size in bytes of the length field of H.264 and HEVC units; 0 with start codes, and for other codecs."""
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or not extradata or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def check_units(packet: bytes, prefix: int) -> None:
    """Check for bytes that emulation prevention excludes (ITU-T H.264 7.4.1, H.265 7.4.2).

    Raises:
        Damaged: if there are any, or the lengths do not fit the packet.
    """
    at = 0
    while at + prefix <= len(packet):
        start = at + prefix
        at = start + int.from_bytes(packet[at:start], "big")
        if at > len(packet):
            raise Damaged("a unit is longer than its packet")
        unit = packet[start:at]
        content = unit.rstrip(b"\0")
        if _FORBIDDEN.search(content) or len(unit) - len(content) > _MOST_TRAILING_ZEROS:
            raise Damaged("a unit holds bytes that its codec forbids")


def _reference_decoder(av: Any, codec: str) -> Any:
    """The decoder libvpx for VP9, which detects more damage than FFmpeg's; None for others, and if it is missing."""
    if codec != "vp9" or "libvpx-vp9" not in av.codecs_available:
        return None
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    decoder.options = {**STRICT, "threads": "1"}
    decoder.thread_type = "NONE"
    return decoder


def _declared_packets(film: Any, stream: Any) -> int:
    """Number of frames from the index of MP4 or the header of AVI; 0 without either."""
    if "mov" in film.format.name:
        entries = getattr(stream, "index_entries", None)
        return 0 if entries is None else len(entries)
    return int(stream.frames) if film.format.name == "avi" else 0


def _declared_seconds(film: Any, stream: Any) -> float | None:
    """End of the video from Matroska's header; None if it has none, or includes the audio."""
    if "matroska" not in film.format.name:
        return None
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match:
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    return None if len(film.streams) > 1 or not film.duration else film.duration / 1e6
