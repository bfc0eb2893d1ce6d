"""A model in which every part has an effect, and what it perceives in random clips."""

from __future__ import annotations

import pytest
from tests.inference.inspection.test_chain import SEEDS, busy_model, random_clips, random_masks

from aime.inference.inspection.chain import Recording, record
from aime.world_model.model import AIME


@pytest.fixture(scope="module")
def model() -> AIME:
    return busy_model()


@pytest.fixture(scope="module")
def recording(model: AIME) -> Recording:
    return record(model, random_clips(), SEEDS, masks=random_masks())
