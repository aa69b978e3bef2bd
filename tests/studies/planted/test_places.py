import pytest
import torch

from workbench.errors import InputError
from workbench.studies.placements import SHAPES
from workbench.studies.planted.kinds import KINDS
from workbench.studies.planted.places import check_room, draw_places, has_room


@pytest.mark.parametrize("kind", KINDS)
def test_heads_stand_above_what_they_read_and_on_keys_of_their_own(kind):
    parts = KINDS[kind].all_parts
    generator = torch.Generator().manual_seed(0)
    shapes = [shape for shape in SHAPES if has_room(parts, *shape)]
    assert len(shapes) >= 5
    for n_layers, n_heads, groups in shapes:
        place = draw_places(generator, parts, n_layers, n_heads, groups)
        assert len(set(place.values())) == len(parts)
        for part in parts:
            assert all(place[below][0] < place[part.name][0] for below in part.above)
        size = n_heads // groups
        own = [(place[p.name][0], place[p.name][1] // size) for p in parts if p.name != "twin"]
        assert len(set(own)) == len(own)
        if size > 1 and "filter" in place:
            assert place["twin"][0] == place["filter"][0]
            assert place["twin"][1] // size == place["filter"][1] // size


def test_places_vary_over_layers_and_heads():
    parts = KINDS["chains"].all_parts
    generator = torch.Generator().manual_seed(0)
    found = [draw_places(generator, parts, 4, 8, 4) for _ in range(20)]
    assert {place["filter"][1] for place in found} == set(range(8))
    assert {place["match"][0] for place in found} == {0, 1, 2}
    assert {place["refine_readout"][0] for place in found} == {1, 2, 3}


def test_a_shape_without_room_is_refused():
    parts = KINDS["hydra"].all_parts
    with pytest.raises(InputError, match="at least 3 layers"):
        check_room(parts, 2, 8, 8)
    with pytest.raises(InputError, match="share 3 key-value heads evenly"):
        check_room(parts, 3, 8, 3)
    assert not has_room(KINDS["redundant_3"].all_parts, 4, 8, 2)
