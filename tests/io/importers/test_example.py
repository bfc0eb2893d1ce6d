"""An importer is added as CONTRIBUTING.md says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from aime.data import open_dataset
from aime.errors import AimeError
from aime.io.importers import interface, registry
from aime.io.importers.interface import Choice
from aime.io.importers.run import ImportRequest, import_episodes

HEAD = """from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from aime.errors import AimeError
"""


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> str:
    """The example's, in the registry."""
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```python\n("""Folders of arrays.*?)```', text, re.DOTALL)
    module = ModuleType("aime.io.importers.arrays")
    vars(module).update({name: each for name, each in vars(interface).items() if not name.startswith("__")})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(HEAD + code, vars(module))
    monkeypatch.setitem(registry.KINDS, "arrays", "arrays")
    return "arrays"


def test_the_example_imports_frames_and_actions(kind: str, tmp_path: Path) -> None:
    source, random = tmp_path / "source", np.random.default_rng(0)
    source.mkdir()
    frames = [random.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8) for length in (70, 5)]
    actions = [random.uniform(-3, 3, (len(each), 2)) for each in frames]
    for number, (each, taken) in enumerate(zip(frames, actions, strict=True)):
        np.save(source / f"{number}.npy", each)
        np.save(source / f"{number}.action.npy", taken)
    (importer,) = registry.open_source(kind, source, Choice()).values()
    request = ImportRequest(kind, str(source), image_size=16, action_range=(-3.0, 3.0))
    import_episodes(importer, tmp_path / "out", request, Console(quiet=True))
    dataset = open_dataset(tmp_path / "out", "all")
    assert [episode.pixels.tolist() for episode in dataset] == [each.tolist() for each in frames]
    for episode, taken in zip(dataset, actions, strict=True):
        np.testing.assert_allclose(episode.action, taken / 3, rtol=1e-5, atol=1e-6)


def test_the_example_names_what_is_no_array(kind: str, tmp_path: Path) -> None:
    (importer,) = registry.open_source(kind, tmp_path, Choice()).values()
    with pytest.raises(AimeError, match=r"holds no \*\.npy"):
        importer.survey()
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(AimeError, match=r"a\.npy: is no array"):
        importer.read(importer.survey().items[0])
