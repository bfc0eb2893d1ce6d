"""SHA-256 checksums of a directory's files, in a file SHA256SUMS that `sha256sum --check` reads, too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from aime.errors import AimeError
from aime.primitives.files import read_small, unwritable, write_atomically

T = TypeVar("T")

SUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)\n", re.ASCII)
_LONGEST = 2**20
_TRIES = 20
"""A reader's, when the directory is replaced under it; a replacement takes longer than a look."""
_SEAL = "# Delete this line after editing. SHA-256 of the lines above: "
_REMEDY = "restore it from a copy or write it again"


def write_sums(directory: Path, names: Iterable[str]) -> None:
    """Write the checksums of files of a directory, replacing an existing list.

    Raises:
        AimeError: if a file cannot be read, or the checksums cannot be written.
    """
    try:
        lines = [f"{sha256_of(directory / name)}  {name}\n" for name in sorted(names)]
    except OSError as error:
        raise unwritable(directory / SUMS, error) from error
    write_atomically(directory / SUMS, "".join(lines).encode())


def check_sums(directory: Path, names: Iterable[str] | None = None) -> None:
    """Verify files of a directory against its checksums, at about one second per gigabyte.

    A directory without checksums passes, since earlier versions wrote none.

    Args:
        directory: with the files.
        names: of the files to verify; None for all.

    Raises:
        AimeError: if a file or the list is damaged; names the file.
    """
    listed = _listed(directory / SUMS)
    if listed is None:
        return
    there = [path.name for path in directory.iterdir() if path.suffix in (".safetensors", ".json")]
    wanted = sorted({*listed, *there} if names is None else names)
    for name in wanted:
        if name not in listed and (directory / name).is_file():
            raise AimeError(f"{directory / SUMS}: damaged: it does not list {name}; {_REMEDY}")
    for name, expected in ((name, listed[name]) for name in wanted if name in listed):
        path = directory / name
        if not path.is_file():
            continue  # reported when the file is read
        try:
            found = sha256_of(path)
        except OSError as error:
            raise AimeError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error
        if found != expected:
            raise AimeError(
                f"{path}: damaged: its SHA-256 begins with {found[:12]}, expected {expected[:12]} as in {SUMS}; "
                f"{_REMEDY}"
            )


def read_checked(find: Callable[[], Path], read: Callable[[Path], T], names: Iterable[str] | None = None) -> T:
    """Verify the files of a directory and read it; start again if another process replaces it (`replace_directory`).

    Args:
        find: returns the directory.
        read: called with the directory; its result is returned.
        names: of the files to verify; None for all.

    Raises:
        AimeError: if a file is damaged, or `find` or `read` raises it.
    """
    for last in [False] * (_TRIES - 1) + [True]:
        directory = find()
        before = _identity(directory)
        try:
            check_sums(directory, names)
            found = read(directory)
        except (AimeError, OSError):
            if last or _identity(directory) == before:
                raise
            continue
        if last or _identity(directory) == before:
            return found
    raise AssertionError("the last try returns or raises")


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def seal(text: str) -> str:
    """The text with a last comment line that holds its SHA-256, for files that users may edit."""
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def check_seal(text: str, path: Path) -> None:
    """Verify a text against the line that `seal` adds; a text without that line passes.

    Raises:
        AimeError: if the text differs; names the file.
    """
    before, comment, found = text.rpartition(_SEAL)
    if comment and found != hashlib.sha256(before.encode()).hexdigest() + "\n":
        raise AimeError(
            f"{path}: is not as aime wrote it: its last line holds another SHA-256; delete that line if you edited "
            "the file, or else restore it from a copy"
        )


def _listed(path: Path) -> dict[str, str] | None:
    """Digests by name, or None without a list; any changed byte of the list is detected."""
    if not path.exists():
        return None
    text = read_small(path, _LONGEST).decode("ascii", errors="replace")
    matches = list(_LINE.finditer(text))
    listed = {match[2]: match[1] for match in matches}
    if "".join(match[0] for match in matches) != text or len(listed) != len(matches) or not listed:
        raise AimeError(f"{path}: damaged: expected lines of a SHA-256 and a name; {_REMEDY}")
    return listed


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
