"""A rank whose peer was killed reports it, although torchrun sends SIGTERM at the same time."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Iterator

import pytest
from torch import distributed

from aime.errors import AimeError
from aime.primitives.signals import handled
from aime.runs import processes


class Signalled:
    """A heartbeat that takes a while to find out which rank is gone; SIGTERM arrives meanwhile."""

    def __init__(self, *arguments: object) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def explain_loss(self) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        return "rank 0 of 2 has ended"


def test_sigterm_does_not_cut_short_what_a_lost_rank_is_told_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def meeting(url: str) -> Iterator[tuple[object, int, int]]:
        yield distributed.HashStore(), 1, 2  # type: ignore[attr-defined]

    monkeypatch.setenv("WORLD_SIZE", "2")
    # torch.distributed has a function of the module's name
    monkeypatch.setattr(importlib.import_module("torch.distributed.rendezvous"), "rendezvous", meeting)
    monkeypatch.setattr(processes, "join", lambda *arguments: None)
    monkeypatch.setattr(processes, "Heartbeat", Signalled)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with pytest.raises(AimeError, match="rank 0 of 2"), handled(), processes.process_group():
        raise distributed.DistNetworkError("connection closed by peer")
