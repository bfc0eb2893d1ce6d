from __future__ import annotations

import torch
from tests.models import SIZE, small_config

from aime.world_model.model import AIME


def test_filtering_gives_the_states_and_maps_of_the_whole_pass() -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    frames, actions = torch.rand(2, 4, 3, SIZE, SIZE), torch.rand(2, 4, 2) * 2 - 1
    valid = torch.tensor([[True, True, False, True], [True, False, True, True]])
    with torch.no_grad():
        seen = model.filter_sequence(frames, actions, valid)
        output = model.forward_sequence(frames, actions, valid)
    for name in ("latents", "beliefs", "belief_contexts", "actions"):
        torch.testing.assert_close(getattr(seen.track, name), getattr(output.track, name))
    torch.testing.assert_close(seen.maps, output.attention.bottom_up)
