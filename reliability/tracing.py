"""What a command does to the system, by strace: the files it opens, the programs it starts, the sockets it makes."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from reliability.children import Ended, run
from reliability.watching import USUAL, Limits

CALLS = (
    "openat,open,creat,socket,connect,bind,execve,execveat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,"
    "link,linkat,symlink,symlinkat,truncate,chmod,fchmodat,mknod,mknodat"
)
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) = (-?\d+)")
_NAMED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"\d+<[^>]*>,? ?")
SYSTEM = ("/usr/", "/lib", "/etc/", "/proc/", "/sys/", "/dev/", "/opt/", "/var/", "/run/", "/bin/", "/sbin/")
"""Where programs and libraries lie, which every command reads."""


@functools.cache
def can_trace() -> bool:
    """Whether strace is installed and may trace; some containers forbid it."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-e", "trace=execve", "-o", "/dev/null", "true"], check=False
        ).returncode
        == 0
    )


def traced(
    command: Sequence[str], place: Path, limits: Limits = USUAL, env: Mapping[str, str] | None = None
) -> tuple[Ended, set[str]]:
    """Run a command under strace: how it ended, and what it did to the system.

    The latter holds a line for each program started, each socket, and each path outside of `place` or within
    `place/outside` that was opened; paths of the system and of Python count when they are written to.
    """
    log = place / "strace.log"
    words = ["strace", "-f", "-y", "-qq", "-s", "4096", "--seccomp-bpf", "-o", str(log), "-e", f"trace={CALLS}"]
    ended = run([*words, "--", *command], place, limits, env)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return ended, {event for line in text.splitlines() for event in _events(line, place)}


def _events(line: str, place: Path) -> list[str]:
    match = _CALL.match(line)
    if match is None:
        return []
    call, arguments, result = match[1], match[2], int(match[3])
    if call in ("socket", "connect", "bind"):
        return [f"{call} {_DESCRIPTOR.sub('', arguments)[:120]}"]
    if call.startswith("exec"):
        program = _NAMED.match(arguments)
        # a shell's search tries every directory of PATH; what was started is what counts
        return [f"execve {_path('', program[2])}".replace(str(place), "")] if program and result >= 0 else []
    writes = call not in ("openat", "open") or any(flag in arguments for flag in ("O_WRONLY", "O_RDWR", "O_CREAT"))
    paths = [_path(directory, name) for directory, name in _NAMED.findall(arguments)]
    return [
        f"{'writes' if writes else 'reads'} {path}"
        for path in paths
        if _is_outside(path, place, writes) and (result >= 0 or path.startswith(f"{place}/outside"))
    ]


def _path(directory: str, name: str) -> str:
    return os.path.normpath(os.path.join(directory or os.getcwd(), name))


def _is_outside(path: str, place: Path, writes: bool) -> bool:
    own = (f"{place}/source", f"{place}/out/", f"{place}/tmp/", f"{place}/cache")
    if path.startswith(f"{place}/outside"):
        return True
    if path.startswith(own) or path in (str(place), f"{place}/out", f"{place}/tmp", "/dev/null", "/dev/tty"):
        return False
    if writes:
        return not path.startswith(("/dev/shm/", "/proc/self/"))
    python = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), *filter(os.path.isabs, sys.path))
    return not path.startswith((*SYSTEM, *python))
