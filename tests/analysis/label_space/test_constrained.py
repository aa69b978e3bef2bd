import numpy as np
import pytest
import torch
from fixtures.tiny_runs import save_model
from transformers import AutoModelForCausalLM

from workbench.analysis.label_space.constrained import LabelConstraint, generate_labels, read_labels
from workbench.errors import InputError
from workbench.labels.index import LabelIndex

END, SEPARATOR, D_VOCAB = 0, 63, 64


def index_of(rows: list[list[int]]) -> LabelIndex:
    tokens = np.array([token for row in rows for token in row])
    return LabelIndex.from_tokens(tokens, np.array([len(row) for row in rows]), end=END)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_model("llama", tmp_path_factory.mktemp("llama"))
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def index() -> LabelIndex:
    rng = np.random.default_rng(0)
    rows = {tuple(rng.integers(1, 12, rng.integers(1, 6)).tolist()) for _ in range(200)}
    return index_of([list(row) for row in sorted(rows)])


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, D_VOCAB, rng.integers(3, 8)).tolist() for _ in range(40)]


def allowed(constraint: LabelConstraint, *written: list[int]) -> list[list[int]]:
    """Tokens left to rows that wrote this after a prompt of one token."""
    ids = torch.tensor([[9, *row] for row in written])
    scores = torch.randn(len(written), D_VOCAB)
    masked = constraint(ids, scores)
    kept = masked.isfinite()
    assert torch.equal(masked[kept], scores[kept])
    return [row.nonzero().flatten().tolist() for row in kept]


def test_only_tokens_that_continue_a_label_are_left():
    constraint = LabelConstraint(index_of([[1, 2], [1], [3, 4, 5]]), 1)
    assert allowed(constraint, [], []) == [[1, 3], [1, 3]]
    assert allowed(constraint, [1], [3]) == [[END, 2], [4]]
    assert allowed(constraint, [1, END], [3, 4]) == [[END], [5]]
    assert allowed(constraint, [1, END, END], [3, 4, 5]) == [[END], [END]]


def test_rows_may_change_places_and_steps_may_be_missed():
    constraint = LabelConstraint(index_of([[1, 2, 6], [3, 4, 5]]), 1)
    allowed(constraint, [1], [3])
    assert allowed(constraint, [3, 4], [3, 4]) == [[5], [5]]
    assert allowed(constraint, [3], [1]) == [[4], [2]]  # a step back
    assert allowed(constraint, [1, 2, 6], [3, 4, 5]) == [[END], [END]]  # two steps on


def test_lists_return_to_the_root_and_repeat_no_label():
    rows = [[1], [1, 2], [3]]
    constraint = LabelConstraint(index_of(rows), 1, separator=SEPARATOR)
    assert allowed(constraint, [1]) == [[END, 2, SEPARATOR]]
    assert allowed(constraint, [3, SEPARATOR]) == [[1]]
    assert allowed(constraint, [1, SEPARATOR, 1]) == [[2]]
    assert allowed(constraint, [1, SEPARATOR, 3, SEPARATOR, 1, 2]) == [[END]]  # none is left
    again = LabelConstraint(index_of(rows), 1, separator=SEPARATOR, repeats=True, max_labels=2)
    assert allowed(again, [3, SEPARATOR]) == [[1, 3]]
    assert allowed(again, [3, SEPARATOR, 3]) == [[END]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True, "temperature": 3.0},
        {"num_beams": 4},
        {"num_beams": 4, "do_sample": True},
    ],
    ids=["greedy", "sampled", "beams", "sampled beams"],
)
def test_every_generation_is_a_label(model, index, prompts, settings):
    torch.manual_seed(0)
    found = generate_labels(model, prompts, index, **settings)
    assert all(len(row) == 1 and row[0] in index.order for row in found)
    assert len({row[0] for row in found}) > 3


def test_beams_find_the_label_of_highest_probability(model, prompts):
    rows = [[5, 1], [5, 2, 3], [6], [7, 7, 1, 2]]
    index = index_of(rows)
    for prompt in prompts[:5]:
        scores = []
        for row in rows:
            ids = torch.tensor([[*prompt, *row, END]])
            with torch.no_grad():
                logits = model(ids).logits[0, len(prompt) - 1 : -1]
            scores.append(float(logits.log_softmax(-1)[range(len(row) + 1), [*row, END]].sum()))
        found = generate_labels(model, [prompt], index, num_beams=8, length_penalty=0.0)
        assert found == [[int(np.argmax(scores))]]


def test_lists_hold_no_label_twice(model, index, prompts):
    torch.manual_seed(0)
    settings = {"separator": SEPARATOR, "max_labels": 4, "do_sample": True, "temperature": 5.0}
    found = generate_labels(model, prompts, index, **settings)
    assert all(len(set(row)) == len(row) <= 4 for row in found)
    assert max(map(len, found)) > 1


def test_batches_do_not_matter_to_greedy_labels(model, index, prompts):
    together = generate_labels(model, prompts[:9], index, batch_size=9)
    assert together == generate_labels(model, prompts[:9], index, batch_size=1)


def test_reading_stops_where_a_label_is_cut_or_none():
    index = index_of([[1, 2], [3]])
    assert read_labels(index, [3, END, 1, 2]) == [1]
    assert read_labels(index, [3, SEPARATOR, 1, 2, END], SEPARATOR) == [1, 0]
    assert read_labels(index, [3, SEPARATOR, 1], SEPARATOR) == [1]
    assert read_labels(index, [1, END]) == []


def test_refused(index, model):
    with pytest.raises(InputError, match=r"^separator 4 occurs in label 1;"):
        LabelConstraint(index_of([[1], [3, 4]]), 1, separator=4)
    with pytest.raises(InputError, match="separator 0 is the end token"):
        LabelConstraint(index, 1, separator=END)
    with pytest.raises(InputError, match="prompt_length is 0"):
        LabelConstraint(index, 0)
    with pytest.raises(InputError, match="max_labels is 2: lists of labels need a separator"):
        generate_labels(model, [[1]], index, max_labels=2)
    with pytest.raises(InputError, match="no tokens"):
        generate_labels(model, [[]], index)
    with pytest.raises(InputError, match="prompt_length must be the width"):
        allowed(LabelConstraint(index_of([[1, 2]]), 1), [50, 1], [50, 1])
    with pytest.raises(InputError, match=r"token 64, the model's vocabulary is 0\.\.63"):
        allowed(LabelConstraint(index_of([[1], [D_VOCAB]]), 1), [])
