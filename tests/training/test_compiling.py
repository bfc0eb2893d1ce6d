"""Where compiling fails, a line says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from aime.errors import AimeError
from aime.training.compiling import compiled


def test_a_failure_of_the_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def uncompilable(function: Callable[[int], int]) -> Callable[[int], int]:
        def call(number: int) -> int:
            raise AssertionError("\n\nfrom user code:\n   File ...")

        return call

    monkeypatch.setattr(torch, "compile", uncompilable)
    with pytest.raises(AimeError, match=r"failed with AssertionError \(from user code:\).*take --no-compile$") as found:
        compiled(abs)(3)
    assert "\n" not in str(found.value)
    assert isinstance(found.value.__cause__, AssertionError)


def test_what_a_user_can_put_right_and_lack_of_memory_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    for error in (AimeError("frames are missing"), torch.OutOfMemoryError("too little")):

        def failing(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error), match=str(error)):
            compiled(failing)()
    assert compiled(abs)(-3) == 3
