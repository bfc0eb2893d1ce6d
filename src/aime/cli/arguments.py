"""Parsing of a verb's arguments into a dataclass with tyro, with one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, get_type_hints

import tyro

from aime.errors import AimeError, name_once
from aime.primitives.config_io import Removed, constant_of, earlier_name

T = TypeVar("T")

HELP_ALL = "--help-all"
"""The flag that shows all settings of a verb; `--help` shows the most important ones."""

HELP_FLAGS = ("-h", "--help", HELP_ALL)


def parse(kind: type[T], verb: str, arguments: Sequence[str], default: T | None = None) -> T:
    """Read a verb's arguments into a dataclass; nested dataclasses become dotted flags.

    Args:
        kind: the dataclass; its docstring and field docstrings are the help.
        verb: the verb's name, for messages.
        arguments: the command line after the verb.
        default: values of flags that are not given; without it, fields without a default are required.

    Raises:
        AimeError: if a flag is unknown, has no value, or an invalid one.
        SystemExit: after `--help` has printed the help.
    """
    if wants_help(arguments):
        return _cli(kind, verb, ["--help"], default)
    refuse_unknown_flags(kind, verb, arguments)
    arguments = _with_present_names(kind, arguments)
    # tyro decides by the encoding of stdout whether it draws Unicode boxes
    complaint = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(complaint), contextlib.redirect_stderr(complaint), _wide_terminal():
            return _cli(kind, verb, arguments, default)
    except SystemExit as stop:
        complaint.seek(0)
        problem = condense(complaint.read()).removeprefix(f"{kind.__name__}: ")
        raise AimeError(f"{problem}; see `aime {verb} --help`") from stop


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for help."""
    return any(argument in HELP_FLAGS for argument in arguments)


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag (`--flag value` or `--flag=value`), before parsing.

    The last one counts, as in the parser; None if the flag or its value is missing.
    """
    found = None
    for argument, following in itertools.pairwise([*arguments, ""]):
        _, equals, value = argument.partition("=")
        if _flag_in(argument) == flag:
            found = value if equals or following.startswith("--") else following
    return found or None


def gather(arguments: Sequence[str], flag: str, join: Callable[[Sequence[str]], str]) -> list[str]:
    """The arguments with the values of a flag (`--flag A B`) joined into one.

    For verbs without positional arguments after flags: all values up to the next flag belong to the flag.
    """
    line = list(arguments)
    if flag not in line:
        return line
    first = line.index(flag) + 1
    last = next((place for place in range(first, len(line)) if line[place].startswith("--")), len(line))
    return [*line[:first], *([join(line[first:last])] if last > first else []), *line[last:]]


def words(text: str) -> list[str]:
    """The parts of a value between commas, without spaces and without empty parts."""
    return [word.strip() for word in text.split(",") if word.strip()]


def has_flag(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag is given, with or without a value."""
    return any(_flag_in(argument) == flag for argument in arguments)


def _flag_in(argument: str) -> str:
    """The flag of `--flag` or `--flag=value`, with hyphens; the parser accepts underscores as well."""
    return argument.partition("=")[0].replace("_", "-")


def refuse_unknown_flags(kind: type, verb: str, arguments: Sequence[str]) -> None:
    """Check that all flags exist; the error names the most similar flag.

    Raises:
        AimeError: at the first unknown flag.
    """
    known = [*flags_of(kind), *_earlier_flags(kind)]
    for argument in arguments:
        if argument.startswith("--") and _flag_in(argument) not in known:
            name = argument.partition("=")[0]
            _refuse_constant(kind, name)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see `aime {verb} --help`"
            raise AimeError(f"there is no flag {name}; {hint}")


def _refuse_constant(kind: type, flag: str) -> None:
    """Raises: AimeError: if the flag is a setting of the previous release that is a constant now."""
    path = flag.removeprefix("--").replace("-", "_")
    value = constant_of(kind, re.sub(r"(^|\.)no_(?=\w+$)", r"\1", path))
    if value is None:
        return
    if isinstance(value, Removed):
        value = value.settings.get(path.rpartition(".")[2])
    follows = "it follows from other settings" if isinstance(value, property) else f"it is always {value}"
    why = "this version has no such part" if value is None else follows
    raise AimeError(f"{flag} is no longer a setting: {why}; leave it out")


def flags_of(kind: type) -> list[str]:
    """All flags of a dataclass; those of nested dataclasses have dots."""
    hints = get_type_hints(kind)
    flags = []
    for field in dataclasses.fields(kind):
        name = field.name.replace("_", "-")
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            flags += [f"--{name}.{flag.removeprefix('--')}" for flag in flags_of(hint)]
        else:
            flags += [f"--{name}", f"--no-{name}"] if hint is bool else [f"--{name}"]
    return flags


def _with_present_names(kind: type, arguments: Sequence[str]) -> list[str]:
    """The arguments with renamed flags under their new names; a line on stderr says so."""
    earlier, line = _earlier_flags(kind), []
    for argument in arguments:
        flag = _flag_in(argument)
        if flag in earlier:
            print(f"{flag} is {earlier[flag]} now; the next release knows the new name alone", file=sys.stderr)
            argument = earlier[flag] + argument[len(flag) :]
        line.append(argument)
    return line


def _earlier_flags(kind: type, path: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> dict[str, str]:
    """The present flags by their earlier spellings."""
    hints = get_type_hints(kind)
    found: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        new, hint = field.name, hints[field.name]
        for old in filter(None, (new, earlier_name(field))):
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):
                found |= _earlier_flags(hint, (*path, new), (*before, old))
            elif (*before, old) != (*path, new):
                for no in ("", "no_") if hint is bool else ("",):
                    present = ".".join((*path, no + new)).replace("_", "-")
                    found["--" + ".".join((*before, no + old)).replace("_", "-")] = f"--{present}"
    return found


def condense(box: str) -> str:
    """The first section of a boxed message of tyro, as one line."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    rule = next((number for number, line in enumerate(lines) if line.startswith("─")), len(lines))
    text = " ".join(" ".join(lines[:rule]).split()).replace("Error parsing ", "")
    optional = re.match(r"(\S+): no type matching (.+?) could be instantiated from \['(.*?)'\]", text)
    if optional:
        return f"{optional[1]} is '{optional[3]}'; expected {optional[2].replace('{None}|', '')}"
    text = re.sub(r"^Missing from [^:]+:", "missing:", text).replace(" (required)", "")
    return name_once(text.rstrip(".:"))


def _cli(kind: type[T], verb: str, arguments: Sequence[str], default: T | None) -> T:
    if default is None:
        return tyro.cli(kind, prog=f"aime {verb}", args=list(arguments))
    return tyro.cli(kind, prog=f"aime {verb}", args=list(arguments), default=default)


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    # without wrapping, paths in messages are not broken
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "4000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
