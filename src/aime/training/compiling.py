"""`torch.compile` with an `AimeError` where compilation fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from aime.errors import AimeError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function compiled at its first call.

    Whether compilation works depends on torch's version, the device and the C++ compiler: torch 2.11 on a GPU breaks
    the graph at an LSTM and then fails an internal assertion.

    Raises:
        AimeError: from a call that fails for another reason than memory.
    """
    compiled_function = torch.compile(function)

    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return compiled_function(*args, **kwargs)
        except (AimeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise AimeError(
                f"compile is on, and the compiled training pass failed with {type(error).__name__} ({reason}); "
                f"expected one that torch {torch.__version__} can compile: take --no-compile"
            ) from error

    return call
