import pytest

from workbench.distill.evaluation.simulated import read_simulated, split_by_id, tokenized
from workbench.errors import InputError

ROW = {"id": "p0", "input": "note: cyst", "chain": "\nreason: 1", "output": " A"}


def test_questions_about_one_chain_are_read_together(tokenizer):
    rows = [ROW, {**ROW, "id": "p1"}, {**ROW, "question": "\nanswer: 2", "output": " B"}]
    rows[0] = {**ROW, "question": "\nanswer: 1"}
    first, other = tokenized(read_simulated(rows), tokenizer)
    assert (first.rows, other.rows) == ((0, 2), (1,))
    assert tokenizer.decode(first.prefix("xe")) == "note: cyst\nreason: 1"
    assert tokenizer.decode(first.prefix("e")) == "\nreason: 1"
    for branch, start, letter in zip(first.branches, first.starts, "AB", strict=True):
        assert tokenizer.decode(branch[start:-1]) == f" {letter}"
        assert branch[-1] == tokenizer.eos_token_id


def test_a_split_keeps_prompts_whole():
    table = read_simulated([{**ROW, "id": number // 2} for number in range(20)])
    train, test = split_by_id(table, 0.3, seed=0)
    assert len(test) == 6 and not set(train["id"]) & set(test["id"])
    with pytest.raises(InputError, match="10 prompts cannot be split"):
        split_by_id(table, 0.0, seed=0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"input": "a", "chain": "b"}], "need output"),
        ([{**ROW, "chain": 3}], "row 1: chain must be a text"),
        ([ROW, {**ROW, "output": " "}], "row 2: output is empty"),
        ([ROW, {**ROW, "question": 2}], "row 2: question must be a text"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, said):
    with pytest.raises(InputError, match=said):
        read_simulated(rows)


def test_a_file_is_refused_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "a", "chain": "b", "output": "c"}\n[]\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: line 2 is no object"):
        read_simulated(path)
