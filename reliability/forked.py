"""A process that has AIME imported once and forks for every command: hundreds of commands in minutes.

    python -m reliability.forked < LINES

A line of standard input is a JSON object with `arguments`, `place` and `inside`; a line of standard output says how
the command ended. The child reports, by an audit hook, every process, every socket, and every file that Python opens
to write outside of `inside`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reliability.children import Ended, environment, restrict
from reliability.watching import USUAL, Limits, Watch

MODULES = (
    *("aime.cli.main", "aime.cli.train", "aime.cli.data", "aime.cli.importing", "aime.cli.evaluate"),
    *("aime.training.trainer", "aime.inference.evaluate", "av", "pyarrow.parquet", "h5py", "matplotlib.pyplot"),
)
FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.system", "os.posix_spawn", "pty.")


class Forker:
    """A client of that process: `run` gives a command to it and waits."""

    def __init__(self, place: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "reliability.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(place),
            cwd=Path(__file__).parents[1],
            text=True,
        )

    def run(self, arguments: Sequence[object], place: Path, inside: Path, limits: Limits = USUAL) -> Ended:
        """Run `aime ARGUMENTS` in a fork; what it prints goes below `place`, and it may write below `inside`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        words = [os.fsdecode(os.fsencode(str(each))) for each in arguments]
        line: dict[str, Any] = {"arguments": words, "place": str(place), "inside": str(inside)}
        line |= {"seconds": limits.seconds, "memory": limits.memory}
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        content = json.loads(self._process.stdout.readline())
        return Ended(**{**content, "breaches": tuple(content["breaches"])})

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    """Serve commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints at import is no answer
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(_serve(json.loads(line))) + "\n")
        answers.flush()


def _serve(wanted: dict[str, Any]) -> dict[str, Any]:
    place, inside = Path(wanted["place"]), Path(wanted["inside"])
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"command.{name}" for name in ("out", "err", "breaches")]
    limits = Limits(seconds=wanted["seconds"], memory=wanted["memory"])
    pid = os.fork()
    if pid == 0:
        _child(wanted["arguments"], paths, inside, limits)
    watch = Watch(pid, limits)
    status = watch.wait()
    out, err, breaches = (path.read_text(encoding="utf-8", errors="replace") for path in paths)
    return {
        "status": status,
        "out": out,
        "err": err,
        "seconds": watch.seconds,
        "peak": watch.peak,
        "stopped": watch.stopped,
        "breaches": sorted(set(breaches.splitlines()))[:10],
    }


def _child(arguments: list[str], paths: list[Path], inside: Path, limits: Limits) -> None:
    """The command, in a process that ends with it."""
    status = 70
    try:
        os.setsid()
        restrict(limits)
        out, err, breaches = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in paths)
        for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(number, target)
        _report_to(breaches, inside)
        from aime.cli.main import main as aime

        try:
            status = aime(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _report_to(descriptor: int, inside: Path) -> None:
    """Write what must not happen to a file; the hook lives as long as the process."""
    allowed = tuple(map(os.fsencode, (f"{inside}/", "/dev/null", "/proc/self/")))

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = details
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if not os.path.abspath(os.fsencode(path)).startswith(allowed):
                os.write(descriptor, b"opens to write: " + os.fsencode(path).replace(b"\n", b"?") + b"\n")
        elif event.startswith(FORBIDDEN) and event != "socket.gethostname":
            os.write(descriptor, f"{event} {details!r}"[:200].replace("\n", " ").encode(errors="replace") + b"\n")

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
