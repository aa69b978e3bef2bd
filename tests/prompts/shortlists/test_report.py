import pytest

from workbench.prompts.shortlists.report import ShortlistReport, guess


def test_a_guess_by_order_is_right_where_gold_comes_first_and_ties_share():
    scores = [(-1.0, [-3.0], [-2.0, -4.0]), (0.5, [0.1], [0.5, 0.9]), (1.0, [0.0], [1.0, 0.0])]
    found = guess("order", scores)
    assert found.right == pytest.approx((1 + 0 + 1 / 2) / 3) and found.chance == 1 / 4
    assert found.auc == pytest.approx((1 + 1 / 4 + 3 / 4) / 3)
    assert guess("order", []) is None


def test_what_is_nothing_is_not_said():
    report = ShortlistReport(4, 3, 8, {20: 2, 100: 6}, {"without labels": 1}, {1: 1, 3: 2})
    assert report.lines == [
        "3 prompts of 4 documents (1 without labels); gold recall @20 0.250, @100 0.750",
        "sentences that tell the decided label: 1 in 1, 2 in 3; in the counterfactuals 0 are left "
        "out, the others replaced",
    ]
