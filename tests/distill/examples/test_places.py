import pytest
from fixtures.chats import NOTES, TEXTS, row

from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.stream import Collator
from workbench.distill.reading.positions import ChainRows, Marks
from workbench.errors import InputError

CHAIN = f"shortlist {TEXTS[0]} or {TEXTS[1]} A B\nnot {TEXTS[2]} C is {TEXTS[0]} A"
LISTED = f"shortlist {TEXTS[0]} or {TEXTS[1]} A B"
START = CHAIN.index("not")
PLACED = {
    **row(0),
    "chain": CHAIN,
    "early": [{"span": LISTED, "decision": 1}],
    "late": [
        {"span": [START, START + 18], "decision": 0, "option": 2},
        {"span": [START + 18, len(CHAIN)]},
    ],
    "shortlist": [{"span": [CHAIN.index(" A"), CHAIN.index(" A") + 2], "decision": 0}],
    "near": [
        {"span": f"{TEXTS[2]} C", "decision": 0},
        {"span": f"B. {TEXTS[1]}", "decision": 1, "in": "prompt"},
    ],
    "near_options": [[2], [0, 3]],
}


def sample_of(given, tokenizer):
    return examples_from_chats([given], tokenizer)[0]


def said(sample, tokenizer, positions):
    """The text of the tokens behind these positions."""
    return tokenizer.decode([sample["ids"][at + 1] for at in positions]).strip()


@pytest.fixture(params=["qwen_tokenizer", "llama_tokenizer"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


def test_places_are_found_in_chain_and_prompt(any_tokenizer):
    sample = sample_of(PLACED, any_tokenizer)
    decode = any_tokenizer.decode
    assert said(sample, any_tokenizer, sample["early"]) == LISTED
    assert set(sample["early_decision"]) == {1}
    one, two = (
        [at for at, k in zip(sample["late"], sample["late_decision"], strict=True) if k == wanted]
        for wanted in (0, -1)
    )
    assert said(sample, any_tokenizer, one).startswith(f"not {TEXTS[2]}")
    spoken = dict(zip(sample["late"], sample["late_option"], strict=True))
    assert [{spoken[at] for at in part} for part in (one, two)] == [{2}, {-1}]
    assert said(sample, any_tokenizer, two).endswith(f"is {TEXTS[0]} A")
    ((k, a, b),) = sample["shortlist"]
    assert (k, decode(sample["ids"][a:b]).strip()) == (0, "A")
    named = [(k, decode(sample["ids"][a:b]).strip()) for k, a, b in sample["near"]]
    assert named == [(0, f"{TEXTS[2]} C"), (1, f"B. {TEXTS[1]}")]
    assert [a < sample["question"] for _, a, _ in sample["near"]] == [False, True]
    assert sample["gold"] == [0, 1] and sample["near_options"] == [(0, 2), (1, 0), (1, 3)]


def test_unless_given_a_chain_begins_early_and_ends_late(qwen_tokenizer):
    for repeats in (1, 12):
        chain = " and ".join([f"It tells of {NOTES[0]}"] * repeats)
        bare = {"prompt": "Note: old cough\n", "chain": chain, "answer": "Answer: D"}
        sample = sample_of(bare, qwen_tokenizer)
        written = len(qwen_tokenizer(chain, add_special_tokens=False)["input_ids"])
        middle = -(-written // 2)
        first = sample["question"] - 1
        assert sample["early"] == list(range(first, first + min(30, middle)))
        assert sample["late"] == list(range(first + middle, first + written))
        # There is one decision, so it is known which.
        assert {*sample["early_decision"], *sample["late_decision"]} == {0}
    assert {*sample_of(row(0), qwen_tokenizer)["late_decision"]} == {-1}


def test_near_misses_are_the_options_unless_a_row_says_where(qwen_tokenizer):
    sample = sample_of({k: v for k, v in PLACED.items() if k != "near"}, qwen_tokenizer)
    spans = sample["option_spans"]
    assert sample["near"] == [(0, *spans[2]), (1, *spans[0]), (1, *spans[3])]


def test_rows_with_and_without_places_make_a_batch(qwen_tokenizer):
    bare = {"prompt": "Note: old cough\n", "answer": "D B A", "labels": ["D", "B", "A"]}
    samples = examples_from_chats([PLACED, bare], qwen_tokenizer)
    batch = Collator()(samples)
    apart = Collator()([sample_of(PLACED, qwen_tokenizer), sample_of(bare, qwen_tokenizer)])
    assert batch.keys() == apart.keys() and all(x.equal(apart[name]) for name, x in batch.items())
    marks = Marks.of(batch)
    for rows, name in ((marks.early, "early"), (marks.late, "late")):
        assert isinstance(rows, ChainRows)
        assert rows.there.sum(dim=1).tolist() == [len(samples[0][name]), 0]
        assert rows.positions[0][rows.there[0]].tolist() == samples[0][name]
    assert marks.gold.tolist() == [[0, 1, -1], [-1, -1, -1]]
    assert marks.near[1].tolist() == [[-1, 0, 0]] * 2
    starts = marks.among_read("early"), marks.among_read("late")
    assert marks.read_at[:, starts[0]].equal(marks.early.positions)
    assert marks.read_at[:, starts[1]].equal(marks.late.positions)
    assert marks.read_at[:, marks.among_read("samples")].equal(marks.samples)


CASES = [
    ({"early": [[0, 999]]}, r"early\[0\] \[0, 999\] is outside the text"),
    ({"late": ["or"]}, r"late\[0\]: its words occur \d+ times"),
    ({"late": [{"span": LISTED, "decision": 2}]}, r"late\[0\]: decision 2 is none of the 2"),
    ({"late": [{"span": LISTED, "option": 1}]}, r"late\[0\]: option 1 of which decision"),
    ({"late": [{"span": LISTED, "option": 4}]}, r"late\[0\]: option: 4 is none of the 4 options"),
    ({"early": [{"span": LISTED, "option": 0}]}, r"early\[0\].*option"),
    ({"shortlist": [{"span": LISTED}]}, "shortlist.*decision"),
    ({"near": [{"span": LISTED, "decision": 0, "in": "answer"}]}, "near.*in"),
    ({"gold": [0]}, "gold has 1 entries, must have one for each of the 2 decisions"),
    ({"gold": [4, None]}, r"gold\[0\]: 4 is none of the 4 options"),
    ({"near_options": [[1], [9]]}, r"near_options\[1\]: 9 is none of the 4 options"),
    ({"gold": [0, 1], "near_options": [[1], [1]]}, r"near_options\[1\]: option 1 is gold"),
    ({"late": [{"span": LISTED, "decision": -1}]}, r"late\[0\]\.part\.decision: .* equal to 0"),
    ({"chain": ""}, "early, late and shortlist are places of a chain, and there is none"),
    ({"early": [[LISTED.index("A B") + 3, LISTED.index("A B") + 4]]}, r"early\[0\] holds no token"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_bad_places_are_refused_in_one_line_without_their_text(change, message, qwen_tokenizer):
    with pytest.raises(InputError, match=message) as caught:
        examples_from_chats([{**PLACED, **change}], qwen_tokenizer)
    assert "\n" not in str(caught.value) and "shortlist Fall" not in str(caught.value)
