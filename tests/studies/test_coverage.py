import pytest
import torch

from workbench.errors import InputError
from workbench.studies.coverage import MOST_EVENTS, coverage_table, draw_terms


def test_studentised_intervals_hold_the_truth_more_often_than_percentiles():
    table = coverage_table(200, [15], n_resamples=200)
    held = table.groupby("interval")["coverage"].mean()
    assert held["studentised"] > 0.92 > held["percentile"]
    assert (table["coverage"] + table["above"] + table["below"]).to_numpy() == pytest.approx(1)
    assert (table["true"] > 0).sum() > 16 and (table["width"] > 0).all()


def test_every_prompt_has_a_valid_pair_and_others_count_for_nothing():
    terms = draw_terms(20, 30, 0.3, 1.0, torch.Generator().manual_seed(0))
    counts = terms.lost.reshape(20, MOST_EVENTS, 30) != 0
    assert counts.any(dim=1).all() and not counts.all()
    for one in terms:
        assert (one[terms.lost == 0] == 0).all()


def test_sizes_without_intervals_are_refused():
    with pytest.raises(InputError, match="from 15 prompts"):
        coverage_table(10, [14])
