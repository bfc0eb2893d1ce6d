"""Random changes of files, drawn from a seed."""

from __future__ import annotations

import contextlib
import json
import random
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from reliability.restructured import change_for

KINDS = ("truncate", "flip", "splice", "zero", "duplicate", "grow", "retype", "renumber")
TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".yaml", ".txt")
NUMBERS = (
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "9223372036854775807",
    "-0.0",
    "NaN",
    "2147483648",
    "٣",
    "5²",
    "1_0",
)
VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 0.5, "", "x", "../../../etc/passwd", [], [1, "a"], {}, {"a": None})


def mutate(path: Path, draw: random.Random) -> str:
    """Change a file in place, and say how.

    Binary files are cut, flipped, spliced, zeroed, doubled and grown, or get other fields and stay well formed; texts
    also get other values of other types.
    """
    change = change_for(path)
    if change is not None and draw.random() < 0.5:
        # an earlier change may have broken it
        with contextlib.suppress(OSError, RuntimeError, KeyError, ValueError, zlib.error, zipfile.BadZipFile):
            return change(path, draw)
    text = path.suffix in TEXTS
    kind = draw.choice(KINDS if text else KINDS[:6])
    content = path.read_bytes()
    if kind == "retype":
        changed = _retyped(path.suffix, content, draw)
    elif kind == "renumber":
        changed = _renumbered(content, draw)
    else:
        changed = changed_bytes(kind, content, draw)
    path.write_bytes(changed)
    return kind


def flip_bit(path: Path, draw: random.Random) -> str:
    """Flip one bit of a file, and say which."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(content))
    return f"bit {place % 8} of byte {place // 8} of {path.name} ({len(content)} bytes)"


def changed_bytes(kind: str, content: bytes, draw: random.Random) -> bytes:
    """Bytes cut, flipped, copied, zeroed, doubled or grown at a random place."""
    size = len(content)
    if size == 0:
        return draw.randbytes(draw.randrange(1, 64))
    start = draw.randrange(size)
    # headers are short and matter most: half of the changes fall into the first kilobyte or the last
    if draw.random() < 0.5:
        start = min(draw.randrange(1024), size - 1) if draw.random() < 0.7 else max(size - 1 - draw.randrange(1024), 0)
    length = min(2 ** draw.randrange(13), size - start)
    block = content[start : start + length]
    if kind == "truncate":
        return content[:start]
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(draw.randint(1, 16)):
            changed[min(start + draw.randrange(64), size - 1)] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == "splice":
        to = draw.randrange(size)
        return content[:to] + block + content[to + length :]
    if kind == "zero":
        return content[:start] + bytes(length) + content[start + length :]
    if kind == "duplicate":
        return content[: start + length] + block * draw.randint(1, 4) + content[start + length :]
    return content + (draw.randbytes(draw.randrange(1, 4096)) if draw.random() < 0.5 else content)


def _renumbered(content: bytes, draw: random.Random) -> bytes:
    """One number of a text replaced by another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content))
    if not found:
        return content + b"0"
    match = draw.choice(found)
    return content[: match.start()] + draw.choice(NUMBERS).encode() + content[match.end() :]


def _retyped(suffix: str, content: bytes, draw: random.Random) -> bytes:
    """One value of a JSON document replaced by one of another type; of other texts one word."""
    lines = content.splitlines(keepends=True) if suffix == ".jsonl" else [content]
    number = draw.randrange(len(lines)) if lines else 0
    try:
        document = json.loads(lines[number])
    except (ValueError, IndexError):
        words = list(re.finditer(rb"[\w.-]+", content))
        if not words:
            return b"[]"
        match = draw.choice(words)
        return content[: match.start()] + json.dumps(draw.choice(VALUES)).encode() + content[match.end() :]
    lines[number] = json.dumps(_with_another(document, draw)).encode() + b"\n"
    return b"".join(lines)


def _with_another(node: Any, draw: random.Random) -> Any:
    """Walk down at random, and change what is there; a member may vanish as well."""
    if not isinstance(node, dict | list) or not node or draw.random() < 0.15:
        return draw.choice(VALUES)
    key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
    if draw.random() < 0.1:
        del node[key]
    else:
        node[key] = _with_another(node[key], draw)
    return node
