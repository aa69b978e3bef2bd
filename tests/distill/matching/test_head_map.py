import math

import pytest
import torch
from fixtures.distillation import shape
from pydantic import ValidationError

from workbench.distill.losses.divergence import js_divergences
from workbench.distill.matching.head_map import (
    HeadMap,
    Pool,
    PooledHead,
    map_layers,
    match_by_attention,
    match_by_depth,
    match_copied,
    swap_teacher,
)
from workbench.errors import InputError


def pooled(*heads: tuple[int, int, Pool, float]) -> list[PooledHead]:
    return [PooledHead(layer=a, head=b, pool=pool, weight=w) for a, b, pool, w in heads]


def paired(headmap: HeadMap) -> dict[tuple[int, int], tuple[int, int]]:
    return {pair.teacher: pair.student for pair in headmap.pairs}


def layers(headmap: HeadMap) -> list[int]:
    return [pair.student[0] for pair in headmap.pairs]


# By depth


@pytest.mark.parametrize(
    ("coarse", "refine", "n_teacher", "n_student", "expected"),
    [
        (3, 4, 6, 4, [1, 2]),  # nearest are 2 and 3, but the teacher's layer 5 reads them
        (3, 5, 6, 4, [2, 3]),  # nothing comes after
        (4, 5, 8, 4, [1, 2]),  # both nearest to 2 by depth; a tie goes to the earlier
        (4, 5, 8, 8, [4, 5]),
        (4, 5, 8, 16, [8, 10]),  # ties again: 8.5 and 10.5
        (0, 7, 8, 2, [0, 1]),
        (6, 7, 8, 4, [2, 3]),
        (0, 1, 32, 4, [0, 1]),
        (3, 4, 6, 1, [0, 0]),  # too shallow for two phases
        (3, 3, 6, 4, [1, 2]),  # one teacher layer holds both pools
        (5, 2, 6, 3, [2, 1]),  # the teacher's own order is refine first
    ],
)
def test_layers_by_depth(coarse, refine, n_teacher, n_student, expected):
    heads = {"coarse": [(coarse, 0)], "refine": [(refine, 1)]}
    headmap = match_by_depth(heads, shape(n_teacher), shape(n_student))
    assert layers(headmap) == expected


def test_a_single_layer_goes_where_relative_depth_says():
    for layer in range(12):
        headmap = match_by_depth({"refine": [(layer, 0)]}, shape(12), shape(5))
        last = 4 if layer == 11 else 3  # one is left to read what is written there
        exact = min((layer + 0.5) / 12 * 5 - 0.5, last)
        assert abs(layers(headmap)[0] - exact) <= 0.5


def test_interleaved_pools_rise_at_each_step_if_there_is_room():
    heads = {"coarse": [(3, 0), (5, 0)], "refine": [(4, 0), (6, 0)]}
    assert layers(match_by_depth(heads, shape(7), shape(4))) == [1, 2, 2, 3]
    assert layers(match_by_depth(heads, shape(8), shape(4))) == [0, 1, 1, 2]  # one reads
    assert layers(match_by_depth(heads, shape(8), shape(3))) == [0, 1, 1, 2]
    assert layers(match_by_depth(heads, shape(8), shape(2))) == [0, 1, 1, 1]


def test_each_head_gets_its_own_in_order_of_weight_and_kv_groups_stay_apart():
    heads = pooled(
        (4, 1, "refine", 0.2), (4, 5, "refine", 0.5), (4, 4, "refine", 0.25), (4, 7, "refine", 0.05)
    )
    headmap = match_by_depth(heads, shape(6), shape(6, 6, 3))
    # Teacher groups: 5 and 4 in one, 1 and 7 in their own; the student's are (0 1)(2 3)(4 5).
    assert [(pair.teacher[1], pair.student[1]) for pair in headmap.pairs] == [
        (5, 0),
        (4, 1),
        (1, 2),
        (7, 4),
    ]
    assert [pair.weight for pair in headmap.pairs] == pytest.approx([0.5, 0.25, 0.2, 0.05])


def test_pools_that_share_a_layer_share_no_head_while_there_are_enough():
    heads = pooled((3, 0, "coarse", 1), (3, 1, "refine", 1))
    headmap = match_by_depth(heads, shape(6), shape(1, 4, 2))
    assert paired(headmap) == {(3, 0): (0, 0), (3, 1): (0, 1)}  # of one group there as here


def test_more_teacher_heads_than_student_heads_share_within_their_pool():
    heads = pooled(
        (3, 0, "coarse", 0.6),
        (3, 2, "coarse", 0.4),
        (3, 4, "refine", 0.5),
        (3, 5, "refine", 0.3),
        (3, 6, "refine", 0.2),
    )
    headmap = match_by_depth(heads, shape(6), shape(1, 3, 3))
    assert paired(headmap) == {
        (3, 0): (0, 0),
        (3, 2): (0, 1),
        (3, 4): (0, 2),
        (3, 5): (0, 2),
        (3, 6): (0, 2),
    }


def test_groups_weigh_a_shared_student_head_like_its_teachers():
    heads = pooled((3, 0, "refine", 6), (3, 1, "refine", 3), (7, 2, "refine", 1))
    headmap = match_by_depth(heads, shape(8), shape(4, 1, 1))
    early, late = headmap.groups("refine")
    assert (early.layer, early.teacher) == (1, pytest.approx({(3, 0): 0.6, (3, 1): 0.3}))
    assert early.student == pytest.approx({(1, 0): 0.9})
    assert (late.layer, late.weight) == (3, pytest.approx(0.1))
    assert headmap.groups("coarse") == ()


def test_plain_lists_keep_their_order_and_weigh_the_same():
    headmap = match_by_depth({"refine": [(5, 3), (5, 0)]}, shape(6), shape(6))
    assert [(pair.teacher, pair.weight) for pair in headmap.pairs] == [((5, 3), 0.5), ((5, 0), 0.5)]


def test_a_carrier_teaches_both_phases():
    headmap = match_by_depth({"coarse": [(1, 2)], "refine": [(1, 2), (4, 0)]}, shape(6), shape(4))
    assert [pair.teacher for pair in headmap.pairs] == [(1, 2), (1, 2), (4, 0)]
    assert [pair.weight for pair in headmap.pairs] == [1.0, 0.5, 0.5]
    assert len({pair.student for pair in headmap.pairs}) == 3


def test_heads_that_cannot_be_matched_are_named():
    with pytest.raises(InputError, match="head 6-0 is outside 6 layers × 8 heads"):
        match_by_depth({"coarse": [(6, 0)]}, shape(6), shape(4))
    with pytest.raises(InputError, match="head 1-2 is listed twice in pool 'refine'"):
        match_by_depth({"coarse": [(1, 2)], "refine": [(1, 2), (1, 2)]}, shape(6), shape(4))
    with pytest.raises(InputError, match="no teacher heads"):
        match_by_depth({"coarse": []}, shape(6), shape(4))
    with pytest.raises(InputError, match="weights of its heads sum to 0"):
        match_by_depth(pooled((1, 2, "refine", 0)), shape(6), shape(4))
    with pytest.raises(ValidationError, match="n_kv_heads 3 does not divide n_heads 8"):
        shape(4, 8, 3)


# By attention


def patterns(n_layers: int, n_heads: int, seed: int) -> dict[int, torch.Tensor]:
    scores = torch.randn(n_layers, 2, n_heads, 6, 6, generator=torch.Generator().manual_seed(seed))
    causal = torch.ones(6, 6).tril().bool()
    return dict(enumerate((2 * scores).masked_fill(~causal, -torch.inf).softmax(dim=-1)))


ROWS = torch.tensor(
    [[False, True, True, True, True, True], [False, False, False, True, True, True]]
)


def compared(theirs: dict[int, torch.Tensor], ours: dict[int, torch.Tensor]):
    """Distances over the chosen rows of whole patterns."""

    def distances(heads):
        found = torch.zeros(len(heads), len(ours), ours[0].shape[1])
        for place, (layer, head) in enumerate(heads):
            teacher = theirs[layer][:, head][ROWS]
            for at, patterns_at in ours.items():
                student = patterns_at.transpose(1, 2)[ROWS]
                found[place, at] = js_divergences(teacher, student) / ROWS.sum()
        return found.flatten(1)

    return distances


def test_divergences_are_those_of_jensen_and_shannon():
    teacher, student = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    found = js_divergences(teacher, student)
    torch.testing.assert_close(found, torch.tensor([math.log(2), 0.0]))


def test_attention_finds_heads_that_look_alike_wherever_they_are():
    theirs, ours = patterns(3, 2, seed=0), patterns(4, 3, seed=1)
    ours[3][:, 1] = 0.9 * theirs[1][:, 0] + 0.1 * ours[3][:, 1]
    ours[0][:, 2] = 0.9 * theirs[2][:, 1] + 0.1 * ours[0][:, 2]
    ours[2][:, 0] = theirs[0][:, 0]
    heads = {"coarse": [(1, 0)], "refine": [(2, 1), (0, 0)]}
    headmap = match_by_attention(heads, compared(theirs, ours), shape(3, 2, 1), shape(4, 3, 3))
    assert paired(headmap) == {(1, 0): (3, 1), (2, 1): (0, 2), (0, 0): (2, 0)}
    assert headmap.method == "attention"


def test_attention_uses_a_student_head_once_while_there_are_enough():
    theirs, ours = patterns(1, 3, seed=0), patterns(2, 1, seed=1)
    for head in range(3):  # all alike, the last one exactly head 0-0 of the student
        theirs[0][:, head] = 0.02 * (2 - head) * theirs[0][:, head]
        theirs[0][:, head] += (1 - 0.02 * (2 - head)) * ours[0][:, 0]
    two = {"coarse": [(0, 0)], "refine": [(0, 2)]}
    teacher, student = shape(1, 3, 1), shape(2, 1, 1)
    found = paired(match_by_attention(two, compared(theirs, ours), teacher, student))
    assert sorted(found.values()) == [(0, 0), (1, 0)]
    three = {"coarse": [(0, 0), (0, 1), (0, 2)]}
    found = paired(match_by_attention(three, compared(theirs, ours), teacher, student))
    assert sorted(found.values()) == [(0, 0), (0, 0), (1, 0)], "the third has its nearest"


# Of copied layers


def test_copied_heads_are_themselves_and_others_go_to_the_nearest_copied_layer():
    kept, teacher, student = (0, 3, 5), shape(6, 3, 3), shape(3, 3, 3)
    theirs = patterns(6, 3, seed=0)
    ours = {at: theirs[layer].clone() for at, layer in enumerate(kept)}
    ours[1][:, 2] = theirs[2][:, 0]
    ours[1][:, 0] = theirs[1][:, 1]  # the best one, but layer 0 is nearer to layer 1
    ours[0][:, 1] = 0.9 * theirs[1][:, 1] + 0.1 * ours[0][:, 1]
    ours[2][:, 0] = theirs[4][:, 2]  # layers 3 and 5 are as near
    asked = []

    def distances(heads):
        asked.extend(heads)
        return compared(theirs, ours)(heads)

    heads = {"coarse": [(3, 1), (2, 0), (1, 1)], "refine": [(5, 2), (4, 2), (2, 0)]}
    found = match_copied(heads, kept, distances, teacher, student)
    assert found.method == "copied" and asked == [(2, 0), (1, 1), (4, 2)]
    assert paired(found) == {
        (3, 1): (1, 1),
        (5, 2): (2, 2),
        (2, 0): (1, 2),
        (1, 1): (0, 1),
        (4, 2): (2, 0),
    }
    assert [pair.student for pair in found.pairs if pair.teacher == (2, 0)] == [(1, 2), (1, 2)]


def test_a_head_that_is_itself_is_shared_only_when_all_are_taken():
    theirs = patterns(3, 2, seed=0)
    ours = {0: theirs[0], 1: theirs[2].clone()}
    ours[1][:, 0] = theirs[1][:, 0]
    heads = {"coarse": [(2, 0)], "refine": [(1, 0)]}
    shapes = shape(3, 2, 2), shape(2, 2, 2)
    found = match_copied(heads, (0, 2), compared(theirs, ours), *shapes)
    assert paired(found)[1, 0] != (1, 0), "2-0 is there itself"
    crowded = {"coarse": [(0, 0), (0, 1), (2, 0), (2, 1)], "refine": [(1, 0), (1, 1)]}
    found = paired(match_copied(crowded, (0, 2), compared(theirs, ours), *shapes))
    assert found[1, 0] == (1, 0) and found[2, 0] == (1, 0)
    with pytest.raises(InputError, match="head 4-0 is outside"):
        match_copied({"coarse": [(4, 0)]}, (0, 2), compared(theirs, ours), *shapes)


# Controls and baselines


def test_a_control_keeps_the_student_side():
    heads = pooled((3, 0, "coarse", 1), (4, 6, "refine", 0.7), (4, 3, "refine", 0.3))
    headmap = match_by_depth(heads, shape(6), shape(4))
    control = swap_teacher(headmap, {"refine": [(4, 1), (4, 2)], "coarse": [(3, 5)]})
    assert [pair.teacher for pair in control.pairs] == [(3, 5), (4, 1), (4, 2)]
    for pool in ("coarse", "refine"):
        ours, theirs = control.groups(pool), headmap.groups(pool)
        assert [group.student for group in ours] == [group.student for group in theirs]
    with pytest.raises(InputError, match="pool 'refine': 1 heads are given for 2 pairs"):
        swap_teacher(headmap, {"coarse": [(3, 5)], "refine": [(4, 1)]})
    with pytest.raises(InputError, match="head 4-9 is outside"):
        swap_teacher(headmap, {"coarse": [(3, 5)], "refine": [(4, 1), (4, 9)]})


def test_whole_layers_are_mapped_evenly_and_last_to_last():
    assert map_layers(12, 4) == [2, 5, 8, 11]
    assert map_layers(6, 4) == [1, 2, 4, 5]
    assert map_layers(3, 3) == [0, 1, 2]
    assert map_layers(2, 4) == [0, 0, 1, 1]
