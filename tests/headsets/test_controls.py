import pandas as pd

from workbench.headsets.controls import controls

LAYERS, HEADS = 4, 4


def score_table():
    """All heads, each with a larger output than those before it."""
    return pd.DataFrame(
        {"layer": layer, "head": head, "output_norm": 10.0 * layer + head}
        for layer in range(LAYERS)
        for head in range(HEADS)
    )


def test_random_controls_match_layers_and_avoid_all_pools():
    heads = [(1, 0), (1, 1), (3, 2)]
    other = [(1, 2), (3, 0)]
    found = controls(heads, score_table(), HEADS, 0, 20, pooled=[*heads, *other])["random"]
    assert len(found) == len({tuple(drawn) for drawn in found}) == 8  # there are no more
    for drawn in found:
        assert len(set(drawn)) == 3
        assert not set(drawn) & {*heads, *other}
    # Layer 1 has only head 3 left; its second head comes from layer 0, the lower neighbour.
    assert all(drawn[1] == (1, 3) and drawn[0][0] == 0 and drawn[2][0] == 3 for drawn in found)
    assert {drawn[0] for drawn in found} == {(0, 0), (0, 1), (0, 2), (0, 3)}


def test_a_layers_shortfall_does_not_take_what_a_neighbour_needs():
    heads = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    # Free: (0, 3), (1, 2), (1, 3) and layers 2 and 3.
    found = controls(heads, score_table(), HEADS, 0, 5, pooled=heads)["random"]
    assert len({tuple(drawn) for drawn in found}) == 5
    for drawn in found:
        assert drawn[:3] == [(0, 3), (1, 2), (1, 3)]
        assert [layer for layer, _ in drawn[3:]] == [2, 2]


def test_controls_are_reproducible_and_depend_on_the_seed():
    heads = [(1, 0), (2, 0)]
    first = controls(heads, score_table(), HEADS, 1, 8, pooled=heads)
    assert first == controls(heads[::-1], score_table(), HEADS, 1, 8, pooled=heads)
    assert first["random"] != controls(heads, score_table(), HEADS, 2, 8, pooled=heads)["random"]
    more = controls(heads, score_table(), HEADS, 1, 9, pooled=heads)
    assert more["random"][:8] == first["random"]


def test_norm_control_takes_the_largest_outside_all_pools():
    found = controls([(0, 0), (3, 3)], score_table(), HEADS, 0, 1, pooled=[(3, 2)])["norm"]
    assert found == [[(3, 0), (3, 1)]]


def test_no_control_where_the_pools_leave_too_few_heads():
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)][:9]
    assert controls(heads, score_table(), HEADS, 0, 3, pooled=heads) == {"random": [], "norm": []}
    assert len(controls(heads[:8], score_table(), HEADS, 0, 3, pooled=heads[:8])["random"]) == 1
