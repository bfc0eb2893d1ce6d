from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest

from aime import environments


def test_importing_aime_waits_for_no_library() -> None:
    program = "import aime, sys; assert not {'gymnasium', 'torch'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_environments_are_known_once_they_are_imported() -> None:
    environments.register_environments()
    dream = gymnasium.spec("aime/Dream-v0")
    assert dream.vector_entry_point is not None and gymnasium.spec("aime/DMC-v0").entry_point is not None
    environments.register_environments()
    assert gymnasium.spec("aime/Dream-v0") is dream


def test_without_gymnasium_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    environments.register_environments()
