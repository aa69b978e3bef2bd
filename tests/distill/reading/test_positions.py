import pytest
import torch

from workbench.distill.reading.positions import Marks, choose_queries

BATCH = {
    "input_ids": torch.zeros(2, 10, dtype=torch.long),
    "labels": torch.zeros(2, 10, dtype=torch.long),
    "weights": torch.ones(2, 10),
    "length": torch.tensor([9, 7]),
    "question": torch.tensor([7, 6]),
    "option_spans": torch.tensor([[[3, 5], [5, 6]], [[2, 3], [0, 0]]]),
    "option_tokens": torch.tensor([[8, 9], [8, 0]]),
    "evidence": torch.tensor([[[1, 2], [0, 0]], [[1, 2], [0, 0]]]),
    "decisions": torch.tensor([[6, 7], [5, -1]]),
}


@pytest.mark.parametrize(
    ("rows", "looks", "expected"),
    [
        ("target", {"rows"}, [[6, 7, 8], [5, 6, -1]]),
        ("options", {"rows"}, [[3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, -1]]),
        ("options", {"decisions"}, [[6, 7], [5, -1]]),
        ("target", {"rows", "options"}, [[3, 4, 5, 6, 7, 8], [2, 5, 6, -1, -1, -1]]),
        ("all", set(), [[-1], [-1]]),
    ],
)
def test_queries_are_the_tokens_that_are_looked_at(rows, looks, expected):
    assert choose_queries(BATCH, rows, looks).tolist() == expected


def test_marks_say_what_the_queries_are():
    queries = torch.tensor([[3, 6, 7, 8], [1, 5, -1, -1]])
    marks = Marks.of({**BATCH, "queries": queries}, "target")
    assert marks.compared.tolist() == [[False, True, True, True], [False, True, False, False]]
    assert marks.decision_rows.tolist() == [[1, 2], [1, 0]]
    whole = Marks.of(BATCH, "target")
    assert torch.equal(whole.compared, whole.rows) and torch.equal(
        whole.decision_rows, whole.decisions
    )
