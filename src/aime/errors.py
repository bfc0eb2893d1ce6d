"""The error for invalid user input, and checks shared by many configs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

Name = TypeVar("Name", bound=str)


class AimeError(ValueError):
    """Invalid input that a user can correct: a file, a field, a flag or a shape.

    The message is one line with what was found, what was expected, and the remedy. The command line prints it without a
    traceback and exits with code 2. Control characters, for instance in file names, are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text with unprintable characters escaped: control characters, surrogates, text directions."""
    return "".join(part if part.isprintable() or part in "\n\t" else _escaped(part) for part in text)


def _escaped(part: str) -> str:
    return part.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_line(error: object) -> str:
    """The text of an error or another object without line breaks, or the name of its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def type_and_text(error: BaseException) -> str:
    """The type of an exception and its text, in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def name_once(message: str) -> str:
    """Shorten the message of a nested config, "a.b: b.c is 0", to "a.b.c is 0"; other messages are unchanged."""
    return re.sub(r"^((?:\w+\.)*(\w+)): \2\.", r"\1.", message)


def expect_positive(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is not above 0; None is allowed.

    The message names a field as `of`.NAME.
    """
    _expect(config, names, of, lambda value: value > 0, "a positive number")


def expect_sizes(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is below 1, as `expect_positive` does."""
    _expect(config, names, of, lambda value: value >= 1, "1 or more: give a positive number")


def expect_at_most(config: object, most: int, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is above `most`, as `expect_positive` does.

    For sizes that would exceed memory.
    """
    _expect(config, names, of, lambda value: value <= most, f"{most} or less: give a smaller number")


def expect_shares(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields not in [0, 1], as `expect_positive` does."""
    _expect(config, names, of, lambda value: 0 <= value <= 1, "a share in [0, 1]")


def expect_shares_below_one(config: object, *names: str, of: str = "", zero: str) -> None:
    """Raise an `AimeError` for the first of these fields not in [0, 1), as `expect_positive` does.

    The message ends with `zero`, the effect of 0.
    """
    _expect(config, names, of, lambda value: 0 <= value < 1, f"a share in [0, 1): 0 {zero}")


def expect_at_least_zero(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is below 0 or not a number, as `expect_positive` does."""
    _expect(config, names, of, lambda value: value >= 0, "0 or more")


def expect_one_of(config: object, name: str, known: Iterable[str], of: str) -> None:
    """Raise an `AimeError`, which lists the known names, if this field of a config is none of them."""
    if (found := getattr(config, name)) not in (names := list(known)):
        raise AimeError(f"{of}.{name} is {found!r}; expected one of {', '.join(names)}")


def expect_choice(name: str, value: str | None, choices: Iterable[str | None]) -> None:
    """Raise an `AimeError` for a value that is none of the choices; the message calls it by `name`."""
    known = tuple(choices)
    if value not in known:
        raise AimeError(f"{name} is {value!r}, expected {' or '.join(map(repr, known))}")


def expect_some_of(names: Iterable[str], known: Iterable[Name], kind: str) -> tuple[Name, ...]:
    """Those of `known` that are named, each once and in the order of `known`.

    Raises:
        AimeError: if a name is unknown, or there is none; the message calls them by `kind`.
    """
    wanted, all_known = tuple(names), tuple(known)
    unknown = [name for name in wanted if name not in all_known]
    if unknown or not wanted:
        found = f"there is no {kind} '{unknown[0]}'" if unknown else f"no {kind} is named"
        raise AimeError(f"{found}; expected some of {', '.join(all_known)}: separate them by commas")
    return tuple(name for name in all_known if name in wanted)


def _expect(config: object, names: tuple[str, ...], of: str, holds: Callable[[float], bool], expected: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not holds(value):
            called = f"{of}.{name}" if of else name
            raise AimeError(f"{called} is {value}; expected {expected}")
