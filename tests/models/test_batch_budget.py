import logging

import pytest
import torch

from workbench.errors import InputError
from workbench.models.batch_budget import PackBudget


def fails_above(limit: int, packs: list[list[int]]):
    def forward(pack):
        if len(pack) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        packs.append(list(pack))

    return forward


def test_rows_are_cut_into_packs_of_the_budget():
    budget, packs = PackBudget(torch.device("cpu")), []
    budget.run(range(10), budget.tokens // 4, packs.append)
    assert [list(pack) for pack in packs] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    packs.clear()
    budget.run(range(3), 10 * budget.tokens, packs.append)  # never less than a row
    assert [list(pack) for pack in packs] == [[0], [1], [2]]


def test_out_of_memory_halves_keeps_what_is_done_and_is_said_once(caplog):
    budget, packs = PackBudget(torch.device("cpu")), []
    row = budget.tokens // 8
    with caplog.at_level(logging.WARNING):
        budget.run(range(12), row, fails_above(3, packs))
        budget.run(range(12, 14), row, fails_above(1, packs))
    assert packs == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12], [13]]
    assert budget.tokens == row  # what was found stays
    assert caplog.text.count("out of memory") == 1


def test_a_row_that_does_not_fit_is_an_error_that_says_what_to_do():
    budget = PackBudget(torch.device("cpu"))
    with pytest.raises(InputError, match="one row of 700 tokens: use shorter prompts"):
        budget.run(range(3), 700, fails_above(0, []))


def test_other_errors_are_not_swallowed():
    def broken(pack):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        PackBudget(torch.device("cpu")).run(range(3), 1, broken)
