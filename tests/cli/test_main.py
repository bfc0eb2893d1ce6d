"""The command as a whole: help, versions, and what each kind of failure looks like."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from aime.cli import main as cli
from aime.errors import AimeError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Installs a function as the verb `fake`."""

    def install(function: Callable[[list[str]], int]) -> None:
        module = ModuleType("aime.cli.fake")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "aime.cli.fake", module)
        monkeypatch.setitem(cli.VERBS, "fake", "a verb for tests")

    return install


def raiser(error: BaseException) -> Callable[[list[str]], int]:
    def run(arguments: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: aime VERB")
    assert all(
        f"\n  {verb} " in text for verb in ("train", "evaluate", "predict", "report", "collect", "data", "doctor")
    )


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_do_not_import_torch(flag: str) -> None:
    code = f"import sys; from aime.cli.main import main; main(['{flag}']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_verb_has_a_module() -> None:
    import importlib

    for verb in cli.VERBS:
        assert callable(importlib.import_module(f"aime.cli.{cli.MODULES.get(verb, verb)}").main)


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "'trian'" in message
    assert "did you mean train?" in message


def test_status_and_arguments_are_passed_through(verb: Callable[..., None]) -> None:
    seen = []

    def run(arguments: list[str]) -> int:
        seen.append(arguments)
        return 7

    verb(run)
    assert cli.main(["fake", "one", "--debug", "--two", "3"]) == 7
    assert seen == [["one", "--two", "3"]]


def test_user_error_is_one_line(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(AimeError("x.h5: 'action' is bad,\n  expected good")))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "aime fake: x.h5: 'action' is bad, expected good\n"


@pytest.mark.parametrize("arguments", [["--debug", "fake"], ["fake", "--debug"]])
def test_debug_shows_the_traceback(
    arguments: list[str], verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raiser(AimeError("no good")))
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert message.endswith("aime fake: no good\n")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/runs/a/metrics.jsonl"),
        OSError("Can't synchronously write data (file write failed: errno = 28, 'No space left on device')"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_one_line(error: Exception, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(error))
    assert cli.main(["fake"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "the disk is full" in message
    assert "free some space" in message
    if isinstance(error, OSError) and error.filename:
        assert error.filename in message


def test_refused_path_is_one_line(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(PermissionError(errno.EACCES, "Permission denied", "/root/x")))
    assert cli.main(["fake"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("aime fake: /root/x: permission denied")
    assert message.count("\n") == 1


def test_interruption_is_130(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(KeyboardInterrupt()))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr().err == "aime fake: interrupted\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 4.00 GiB for an array"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("could not create a primitive"),
    ],
)
def test_short_memory_is_one_line(
    error: Exception, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raiser(error))
    assert cli.main(["fake"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("aime fake: out of memory") and message.count("\n") == 1


def test_what_torch_and_numpy_raise_without_memory_is_one_line(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for allocate in (lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8)):
        verb(lambda arguments, allocate=allocate: allocate())
        assert cli.main(["fake"]) == 2
        assert "out of memory" in capsys.readouterr().err


def test_too_many_open_files_is_no_damage(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/data/000.h5")))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err.startswith("aime fake: /data/000.h5: too many open files; raise the limit")


def test_a_file_beyond_the_limit_of_its_size_is_no_defect(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def write(arguments: list[str]) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        try:
            with tempfile.TemporaryFile() as file:
                os.ftruncate(file.fileno(), 4096)  # as shared memory is asked for: the error names no file
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    verb(write)
    assert cli.main(["fake"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("aime fake: the file exceeds the size limit of this user; raise it")
    assert message.count("\n") == 1


def test_a_defect_is_one_line_and_debug_shows_its_traceback(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raiser(ZeroDivisionError("a\ndefect")))
    assert cli.main(["fake"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("aime fake: internal error (ZeroDivisionError: a defect at test_main.py:")
    assert message.count("\n") == 1 and "--debug" in message
    assert cli.main(["fake", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_of_a_verb_is_a_success(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raiser(SystemExit(0)))
    with pytest.raises(SystemExit) as stop:
        cli.main(["fake", "--help"])
    assert not stop.value.code


def test_a_reader_who_has_read_enough_is_no_error() -> None:
    command = f"{sys.executable} -u -m aime train --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr
