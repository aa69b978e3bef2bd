import torch

from workbench.distill.losses.chain_rows import (
    all_on_first,
    at_rows,
    families,
    named_tokens,
    of_decision,
    set_mass,
    shares,
)

NO, YES = False, True


def test_rows_are_those_of_each_example():
    pattern = torch.arange(12.0).view(2, 3, 2)
    assert at_rows(pattern, torch.tensor([[2, 0], [1, 1]])).tolist() == [
        [[4, 5], [0, 1]],
        [[8, 9], [8, 9]],
    ]


def test_mass_on_sets_and_the_rest():
    pattern = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [1.0, 0, 0, 0]]]).bfloat16()
    one = torch.tensor([[[YES, NO, NO, NO], [NO, YES, NO, NO]]])
    two = torch.tensor([[[NO, YES, YES, NO], [NO, NO, YES, YES]]])
    found = set_mass(pattern, [one, two])
    expected = torch.tensor([[[0.1, 0.5, 0.4], [0, 0, 1]]])
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    assert found.dtype == torch.float32
    assert all_on_first(found).tolist() == [[[1, 0, 0], [1, 0, 0]]]


def test_tokens_of_a_decision_are_all_its_spans():
    named = torch.tensor([[[1, 0, 2], [1, 1, 3], [0, 4, 5], [-1, 0, 5]]])
    assert named_tokens(named, 3, 5).tolist() == [
        [[NO, NO, NO, NO, YES], [YES, YES, YES, NO, NO], [NO] * 5]
    ]
    assert not named_tokens(torch.zeros(1, 0, 3, dtype=torch.long), 2, 5).any()


def test_families_are_gold_and_its_near_misses_where_gold_is_known():
    gold = torch.tensor([[2, -1, 0]])
    near = torch.tensor([[[0, 1], [1, 3], [2, 3], [-1, 0]]])
    assert families(gold, near, 4).tolist() == [[[NO, YES, YES, NO], [NO] * 4, [YES, NO, NO, YES]]]
    assert families(gold, None, 4)[0, 0].tolist() == [NO, NO, YES, NO]


def test_a_row_of_no_known_decision_has_all_or_none():
    sets = torch.tensor([[[YES, NO, NO], [NO, YES, NO]]])
    decision = torch.tensor([[1, -1, 0]])
    assert of_decision(sets, decision, unknown=True).tolist() == [
        [[NO, YES, NO], [YES, YES, NO], [YES, NO, NO]]
    ]
    assert not of_decision(sets, decision, unknown=False)[0, 1].any()
    assert shares(of_decision(sets, decision, unknown=True))[0, 1].tolist() == [0.5, 0.5, 0]
    assert not shares(of_decision(sets, decision, unknown=False))[0, 1].any()
