"""Examples of an adapter: candidates, what is held out, order and batches."""

import pytest
import torch

from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.predicting.adapting.examples import (
    Example,
    candidates_of,
    collate,
    held_out_ids,
    make_examples,
    order_of_batches,
)
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import open_form

TEXTS = [f"label number {number}" for number in range(40)]


@pytest.mark.parametrize(
    ("gold", "add", "found"),
    [
        ([3], False, (5, 3, 8)),
        ([9, 1], False, (5, 3, 8)),
        ([3, 8], True, (5, 3, 8)),
        ([9], True, (5, 3, 9)),
        ([8, 9], True, (5, 8, 9)),  # a right one that was found does not give way
        ([1, 2, 4, 6], True, (1, 2, 4)),
    ],
)
def test_right_labels_are_added_only_where_asked(gold, add, found):
    assert candidates_of([5, 3, 8, 9], gold, 3, add_gold=add) == found
    assert candidates_of([5], [9], 3, add_gold=True) == (5, 9)


def test_questions_are_as_predictions_ask_them(chat_tokenizer):
    asker = Asker(open_form(None, "xmc:none"), chat_tokenizer, max_tokens=900)
    document = Document("d", "A title", "and a text.", (4, 30))
    said = []
    (made,) = make_examples([(document, (2, 4, 6))], asker, TEXTS, said.append)
    asked = asker.ask(document.full_text, [TEXTS[label] for label in (2, 4, 6)])
    assert (made.tokens, made.option_tokens) == (asked.tokens, asked.option_tokens)
    assert made.right == [False, True, False] and made.gold == {4, 30} and said == [1]
    assert "tokens" not in repr(made)


def test_names_of_several_tokens_are_refused(chat_tokenizer):
    asker = Asker(open_form(None, "xmc:none"), chat_tokenizer, max_tokens=4000)
    labels = tuple(range(40))
    assert any(len(one) > 1 for one in asker.ask("a", TEXTS).option_tokens)
    with pytest.raises(InputError, match="names of 40 options take several tokens"):
        make_examples([(Document("d", "", "a", (1,)), labels)], asker, TEXTS)


def test_options_that_are_too_long_make_fewer_candidates(chat_tokenizer):
    form = open_form(None, "xmc:none")
    bare = len(Asker(form, chat_tokenizer, max_tokens=5000).ask("a b", TEXTS[:3]).tokens)
    asker = Asker(form, chat_tokenizer, max_tokens=bare + 8)
    some = [(Document(f"d{n}", "", "a b", (1,)), tuple(range(n))) for n in (2, 8)]
    made = make_examples(some, asker, TEXTS)
    assert made[0].labels == (0, 1) and 1 <= len(made[1].labels) < 8
    assert made[1].labels == tuple(range(len(made[1].labels)))
    with pytest.raises(InputError):
        make_examples(some, Asker(form, chat_tokenizer, max_tokens=30), TEXTS)


def test_groups_are_held_out_together():
    ids = [f"d{number}" for number in range(100)]
    groups = {one: int(one[1:]) // 7 for one in ids[:70]}
    held = held_out_ids(ids, 20, groups, 0)
    assert 14 <= len(held) <= 20 and held == held_out_ids(ids, 20, groups, 0)
    whole = [{f"d{7 * group + at}" for at in range(7)} for group in range(10)]
    assert all(group <= held or not group & held for group in whole)
    assert held != held_out_ids(ids, 20, groups, 1)


def test_every_example_passes_before_any_does_again_in_batches_of_like_length():
    lengths = [(7 * number) % 101 for number in range(400)]
    order = order_of_batches(lengths, 120, 4, 0)
    assert len(order) == 480 and sorted(order[:200]) != sorted(order[200:400])
    assert len(set(order[:400])) > 350 and max(map(list(order).count, range(400))) == 2
    batches = order[:400].reshape(-1, 4)
    spread = [max(lengths[n] for n in one) - min(lengths[n] for n in one) for one in batches]
    assert sum(spread) / len(spread) < 5
    firsts = [lengths[one[0]] for one in batches]
    assert firsts != sorted(firsts)


def test_batches_are_padded_on_the_right():
    options = ((7,), (8,), (9,))
    some = [
        Example((1, 2, 3), options, (4, 5, 6), frozenset({5})),
        Example((1,), options[:2], (4, 5), frozenset({4, 9})),
    ]
    batch = collate(some)
    assert batch["input_ids"].shape == (2, 16) and batch["last"].tolist() == [2, 0]
    assert batch["input_ids"][0, :4].tolist() == [1, 2, 3, 0]
    assert batch["options"].tolist() == [[7, 8, 9], [7, 8, -1]]
    assert torch.equal(batch["right"], torch.tensor([[False, True, False], [True, False, False]]))
