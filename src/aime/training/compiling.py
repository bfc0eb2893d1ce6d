"""`torch.compile`, as far as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from aime.errors import AimeError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def compiled(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function compiled at its first call.

    What torch's compiler cannot do depends on its version, the device and the C++ compiler that is there: torch 2.11 on
    a GPU breaks the graph at an LSTM and then fails an assertion of its own.

    Raises:
        AimeError: by a call of the compiled function that fails, memory aside.
    """
    within = torch.compile(function)

    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return within(*args, **kwargs)
        except (AimeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            told = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            raise AimeError(
                f"compile is on, and the compiled training pass failed with {type(error).__name__} ({told}); expected "
                f"one that torch {torch.__version__} can compile: take --no-compile"
            ) from error

    return call
