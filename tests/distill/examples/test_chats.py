import pandas as pd
import pytest
from fixtures.chats import ROWS, TEXTS, row, write_rows

import workbench as wb
from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.stream import Collator
from workbench.errors import InputError


@pytest.fixture(params=["qwen_tokenizer", "llama_tokenizer", "chat_tokenizer"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("template", ["auto", "chat"])
def test_places_are_found_with_any_tokenizer(any_tokenizer, template):
    samples = examples_from_chats(ROWS, any_tokenizer, template=template, prompt_weight=0.2)
    assert len(samples) == len(ROWS)
    for sample, given in zip(samples, ROWS, strict=True):
        ids, decode = sample["ids"], any_tokenizer.decode
        n = sample["question"]
        assert ids[-1] == any_tokenizer.eos_token_id
        assert sample["weights"] == [0.2] * n + [1.0] * (len(ids) - n)
        wanted = f"{given['chain']}\n{given['answer']}"
        assert decode(ids[n:-1]).strip() == wanted
        shown = [decode(ids[a:b]).strip() for a, b in sample["option_spans"]]
        assert shown == [option["span"] for option in given["options"]]
        assert [decode(ids[a:b]).strip() for a, b in sample["evidence"]] == given["evidence"]
        said = [ids[at + 1] for at in sample["decisions"]]
        assert [decode([token]).strip() for token in said] == given["labels"]
        assert said == [sample["option_tokens"]["ABCD".index(one)] for one in given["labels"]]


def test_a_chat_reads_as_the_template_writes_it(qwen_tokenizer):
    system = {"role": "system", "content": "Answer with letters."}
    given = {**row(0), "prompt": [system, {"role": "user", "content": row(0)["prompt"]}]}
    (sample,) = wb.distill.examples_from_chats([given], qwen_tokenizer)
    n = sample["question"]
    asked = qwen_tokenizer.apply_chat_template(
        given["prompt"], add_generation_prompt=True, return_dict=True
    )
    assert sample["ids"][:n] == asked["input_ids"]


def test_lines_and_tables_say_the_same(qwen_tokenizer, tmp_path):
    samples = examples_from_chats(ROWS, qwen_tokenizer)
    assert examples_from_chats(write_rows(tmp_path / "a.jsonl"), qwen_tokenizer) == samples
    assert examples_from_chats(pd.DataFrame(ROWS), qwen_tokenizer) == samples


def test_spans_in_numbers_and_words_mean_the_same(qwen_tokenizer):
    given = row(0)
    at = given["prompt"].index(given["evidence"][0])
    numbers = [[at, at + len(given["evidence"][0])], None]
    words, counted = (
        examples_from_chats([{**given, "evidence": one}], qwen_tokenizer)[0]
        for one in ([given["evidence"][0], None], numbers)
    )
    assert words == counted and words["evidence"][1] == (0, 0)


def test_decisions_may_lie_in_the_chain(qwen_tokenizer):
    given = {**row(0), "decisions": [TEXTS[0], TEXTS[1]]}
    (sample,) = examples_from_chats([given], qwen_tokenizer)
    said = [qwen_tokenizer.decode(sample["ids"][at + 1]) for at in sample["decisions"]]
    assert all(text.startswith(word.strip()) for text, word in zip(TEXTS, said, strict=False))


def test_rows_without_places_leave_keys_out(qwen_tokenizer):
    bare = {"prompt": "Note: old cough\n", "answer": "D"}
    samples = examples_from_chats([bare, {**bare, "id": 2}], qwen_tokenizer)
    assert set(samples[0]) == {"ids", "weights", "question", "decisions"}
    assert set(Collator()(samples)) == {
        "input_ids",
        "labels",
        "weights",
        "length",
        "question",
        "decisions",
    }
    mixed = Collator()(examples_from_chats([bare, row(0)], qwen_tokenizer))
    assert mixed["option_spans"].shape == (2, 4, 2) and not mixed["option_spans"][0].any()
    assert mixed["evidence"].shape == (2, 2, 2) and mixed["decisions"][0, 1] == -1


CASES = [
    ({"lables": ["A"]}, r"lables: unknown key"),
    ({"prompt": 3}, "prompt"),
    ({"answer": "Answer: A C"}, r"labels\[1\] is no word of the answer"),
    ({"answer": None, "labels": None}, "has neither answer nor labels"),
    ({"evidence": ["fell out"]}, "evidence has 1 spans, must have one for each of the 2"),
    ({"evidence": ["fell ou", "cyst"]}, r"evidence\[0\] is not on token borders"),
    ({"evidence": ["of", "cyst"]}, r"evidence\[0\]: its words occur \d times"),
    ({"evidence": [[3, 999], None]}, r"evidence\[0\] \[3, 999\] is outside the text"),
    ({"labels": ["A", "B"], "answer": "Answer: A,B"}, "begins with another token than its option"),
    ({"options": [{"span": "A. Fall", "label": "A"}]}, r"labels\[1\] is the label of no option"),
    ({"options": [{"span": "A. Fall", "label": "A"}, {"span": "B. Cyst"}]}, "give all or none"),
    (
        {"options": [{"span": "A. Fall", "label": "A 1"}, {"span": "B. Cyst", "label": "A 2"}]},
        "begin with the same token",
    ),
    ({"prompt": row(0)["prompt"] + "\nReply: "}, "a token holds the end of the prompt"),
    ({"prompt": [{"role": "user"}]}, r"prompt\.list\[0\]\.content: key is missing"),
    ({"options": [{"span": [0.5, 4]}]}, r"options\[0\]\.span\.list\[0\]: input should be a valid"),
    ({"labels": None}, "answer, with no labels, is the label of no option"),
    ({"prompt": [{"role": "user", "content": ""}]}, "must be a user's, and hold text"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_bad_rows_are_refused_in_one_line_without_their_text(change, message, qwen_tokenizer):
    given = {**row(0), **change}
    if str(change.get("prompt", "")).endswith("Reply: "):
        given |= {"chain": "", "labels": ["A", "B"], "answer": "A B"}
    with pytest.raises(InputError, match=message) as caught:
        examples_from_chats([row(0), given], qwen_tokenizer)
    said = str(caught.value)
    assert said.startswith("rows[1]: ") and "\n" not in said and "window" not in said


def test_lines_of_a_file_are_named(qwen_tokenizer, tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [row(0)])
    path.write_text(path.read_text() + "{not json\n")
    with pytest.raises(InputError, match=r"a\.jsonl: line 2: not JSON"):
        examples_from_chats(path, qwen_tokenizer)
    path.write_text("\n")
    with pytest.raises(InputError, match=r"a\.jsonl: there are no rows"):
        examples_from_chats(path, qwen_tokenizer)


def test_tokenizers_that_cannot_be_used_are_refused(qwen_tokenizer, tokenizer):
    messages = {**row(0), "prompt": [{"role": "user", "content": row(0)["prompt"]}]}
    with pytest.raises(InputError, match="no chat template"):
        examples_from_chats([messages], tokenizer)
    with pytest.raises(InputError, match="takes a text"):
        examples_from_chats([messages], qwen_tokenizer, template="plain")
    with pytest.raises(InputError, match="gives no character offsets"):
        examples_from_chats([messages], object())
