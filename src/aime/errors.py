"""The one error that a user's input can cause, and the checks that many configs share."""

from __future__ import annotations


class AimeError(ValueError):
    """Something a user can put right: a file, a field, a flag or a shape that does not fit.

    The message is one line that names what was found, what was expected and the remedy. The command line prints it
    without a traceback and exits with code 2; the library raises it like any other `ValueError`.
    """


def expect_positive(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is not above 0; a field that is None is not given.

    The message calls a field by its name, after the name that `of` gives to the config and a dot.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise AimeError(f"{_called(name, of)} is {value}; expected a positive number")


def expect_sizes(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is below 1, called as `expect_positive` calls it."""
    for name in names:
        value = getattr(config, name)
        if not value >= 1:
            raise AimeError(f"{_called(name, of)} is {value}; expected 1 or more: give a positive number")


def expect_shares(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields not in [0, 1], called as `expect_positive` calls it."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise AimeError(f"{_called(name, of)} is {value}; expected a share in [0, 1]")


def expect_at_least_zero(config: object, *names: str, of: str = "") -> None:
    """Raise an `AimeError` for the first of these fields that is below 0 or not a number, None aside.

    It is called as `expect_positive` calls it.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= 0:
            raise AimeError(f"{_called(name, of)} is {value}; expected 0 or more")


def _called(name: str, of: str) -> str:
    return f"{of}.{name}" if of else name
