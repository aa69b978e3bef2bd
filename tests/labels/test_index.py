import itertools
import random

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from workbench.analysis.label_space.label_events import label_events
from workbench.analysis.readout import Roles, focus_confusion
from workbench.errors import InputError
from workbench.labels.index import CHILD_ROLES, FAR, GOLD, NEAR, OTHER, LabelIndex

END = 0


def index_of(rows: list[list[int]], **settings) -> LabelIndex:
    tokens = np.array(list(itertools.chain(*rows)), dtype=np.int64)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return LabelIndex.from_tokens(tokens, lengths, end=END, **settings)


def random_rows(n: int, d_vocab: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    rows = {tuple(rng.choices(range(1, d_vocab), k=rng.randint(1, 9))) for _ in range(n)}
    return [list(row) for row in sorted(rows, key=lambda _: rng.random())]


@pytest.mark.parametrize("d_vocab", [4, 70_000], ids=["16 bits", "32 bits"])
def test_every_prefix_gives_what_a_scan_of_all_labels_gives(d_vocab):
    rows = random_rows(400, d_vocab)
    rows += [row[:2] for row in rows if len(row) > 2 and row[:2] not in rows][:1]
    index = index_of(rows)
    ended = [[*row, END] for row in rows]
    for label in ended[::5]:
        for depth in range(len(label) + 1):
            prefix = label[:depth]
            below = [i for i, row in enumerate(ended) if row[:depth] == prefix]
            node = index.find(prefix)
            assert node is not None
            assert sorted(index.numbers(node).tolist()) == below
            expected = {ended[i][depth] for i in below if depth < len(ended[i])}
            assert index.next_tokens(prefix).tolist() == sorted(expected)


def test_rows_are_sorted_and_labels_keep_their_tokens_and_numbers():
    rows = random_rows(300, 6)
    index = index_of(rows)
    in_order = [index.label_tokens(number).tolist() for number in index.order.tolist()]
    assert in_order == sorted([*row, END] for row in rows)
    assert [index.label_tokens(i).tolist()[:-1] for i in range(len(rows))] == rows


def test_walking_by_steps_is_finding():
    index = index_of(random_rows(300, 5))
    for number in range(0, 300, 30):
        node, tokens = index.root, index.label_tokens(number % len(index)).tolist()
        for depth, token in enumerate(tokens):
            node = index.step(node, token)
            assert node is not None and node == index.find(tokens[: depth + 1])
        assert index.numbers(node).tolist() == [number % len(index)]
        assert len(index.children(node).tokens) == 0


@pytest.mark.parametrize(
    "prefix", [[9], [1, 9], [1, END, END], [1, END, 2], [1, 2, 3, 4, 9], [-1], [1 << 40], [1 << 16]]
)
def test_prefixes_that_start_no_label(prefix):
    index = index_of([[1], [1, 2], [1, 2, 3, 4, 5], [2]])
    assert index.find(prefix) is None
    assert len(index.next_tokens(prefix)) == 0


def test_no_step_to_a_token_outside_the_vocabulary():
    index = index_of([[1], [2]])
    assert [index.step(index.root, token) for token in (-1, 3, 1 + (1 << 16))] == [None] * 3


def test_a_wide_range_keeps_its_children(monkeypatch):
    monkeypatch.setattr("workbench.labels.index.WIDE", 3)
    index = index_of([[1], [1, 2], [2], [3, 1]])
    first = index.children(index.root)
    assert index.children(index.root) is first
    assert first.tokens.tolist() == [1, 2, 3]


def test_texts_are_tokenised_bare(tokenizer, chat_tokenizer, monkeypatch):
    monkeypatch.setattr("workbench.labels.index.BLOCK", 2)
    texts = ["acute pain", "acute pain in left foot", "burn"]
    for one in (tokenizer, chat_tokenizer, tokenizer.backend_tokenizer):
        index = LabelIndex.build(texts, one, end=tokenizer.eos_token_id, before=" ")
        for number, text in enumerate(texts):
            expected = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            assert index.label_tokens(number).tolist()[:-1] == expected


def test_control_tokens_in_labels_are_read_as_text(chat_tokenizer):
    raw = chat_tokenizer.backend_tokenizer
    controls = set(raw.get_added_tokens_decoder())
    for one in (chat_tokenizer, raw):
        index = LabelIndex.build(["page <user> x", "</s>"], one, end=chat_tokenizer.eos_token_id)
        rows = [index.label_tokens(number).tolist()[:-1] for number in range(2)]
        assert not controls & {token for row in rows for token in row}
        assert [chat_tokenizer.decode(row) for row in rows] == ["page <user> x", "</s>"]
    assert "<user>" in raw.encode("<user>").tokens  # left as it was


def test_labels_that_hold_control_tokens_all_the_same_are_named(chat_tokenizer):
    class Deaf:
        added_tokens_decoder = chat_tokenizer.added_tokens_decoder
        unk_token, eos_token_id = None, chat_tokenizer.eos_token_id

        def __len__(self):
            return len(chat_tokenizer)

        def __call__(self, texts, split_special_tokens, **kwargs):
            return chat_tokenizer(texts, **kwargs)

    with pytest.raises(InputError, match=r"^label 1: the end or another control token"):
        LabelIndex.build(["a", "<user>"], Deaf())


def test_padding_and_truncation_of_the_tokenizer_are_left_out_and_left_alone(tokenizer):
    raw = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    raw.enable_padding(length=30)
    raw.enable_truncation(2)
    index = LabelIndex.build(["acute pain in left foot", "burn"], raw, end=tokenizer.eos_token_id)
    plain = tokenizer("acute pain in left foot", add_special_tokens=False)["input_ids"]
    assert index.label_tokens(0).tolist()[:-1] == plain
    assert raw.padding is not None and raw.truncation is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1], [], [2]], "^label 1: no tokens at all"),
        ([[1, END], [1], [END, 3]], r"^labels 0, 2: the end or another control token \(0\) inside"),
        ([[3, 1], [1], [3, 1]], "^labels 0 and 2 have the same tokens, keep"),
        ([[3, 1], [1], [3, 1], [3, 1]], r"labels 0 and 2 .*\(2 labels repeat an earlier one\)"),
    ],
)
def test_unusable_labels_are_named(rows, message):
    with pytest.raises(InputError, match=message):
        index_of(rows)


def test_unusable_labels_can_be_skipped(caplog):
    index = index_of([[3], [], [2, 4], [3], [END], [3], [2]], problems="skip")
    assert sorted(index.order.tolist()) == [0, 2, 6]
    assert index.next_tokens([2]).tolist() == [END, 4]
    assert index.next_tokens([3]).tolist() == [END]
    assert len(caplog.records) == 3
    with pytest.raises(InputError, match="label 3 is not in the index, it was skipped"):
        index.label_tokens(3)
    with pytest.raises(InputError, match=r"label 7 is not in the index of labels 0\.\.6"):
        index.label_tokens(7)


def test_messages_hold_no_label_text(tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(InputError) as caught:
        LabelIndex.build(["secret", "secret"], tokenizer)
    assert "secret" not in str(caught.value)


def test_no_labels_and_no_end_are_refused(raw_tokenizer):
    with pytest.raises(InputError, match="at least one label"):
        LabelIndex.build([], raw_tokenizer, end=0)
    with pytest.raises(InputError, match="no end token"):
        LabelIndex.build(["a"], raw_tokenizer)


def test_roles_say_what_lies_below():
    index = index_of([[1, 1], [1, 2], [2], [3], [4, 1], [4, 2]])
    root = index.root
    assert index.roles(root, [0], [1, 4], [2]).tolist() == [GOLD, OTHER, FAR, NEAR]
    below_one = index.find([1])
    assert below_one is not None
    assert index.roles(below_one, [0], [1, 4], [2]).tolist() == [GOLD, NEAR]
    with pytest.raises(InputError, match="label 6"):
        index.roles(root, [6], [])


def test_events_are_where_labels_part():
    #          0          1          2          3       4
    index = index_of([[5, 1, 1], [5, 1, 2], [5, 1], [6, 1], [7]])
    near = np.array([[1, -1]] * 5, dtype=np.int32)
    events = label_events(index, [9, 9, 9], 0, [0, 2, 3], near)
    assert events.sequence.tolist() == [9, 9, 9, 5, 1, 1]
    assert events.positions.tolist() == [2, 4]  # after the prompt; after "5 1", not after "5"
    assert events.tokens.tolist() == [5, 6, 7, END, 1, 2]
    assert events.roles.tolist() == [GOLD, OTHER, FAR, OTHER, GOLD, NEAR]
    assert events.offsets.tolist() == [0, 3, 6]


def test_the_end_of_a_label_that_begins_another_is_an_event():
    events = label_events(index_of([[5], [5, 1]]), [9], 0, [0], {0: [1]})
    assert events.positions.tolist() == [1]
    assert events.roles.tolist() == [GOLD, NEAR]


def test_a_single_label_has_no_events():
    events = label_events(index_of([[5, 6]]), [9], 0, [0], {0: []})
    focus, confusion = events.focus_confusion(np.zeros((0, 9)))
    assert len(events) == len(focus) == len(confusion) == 0


def test_focus_and_confusion_are_those_of_decision_events():
    rows = random_rows(200, 7)
    index = index_of(rows)
    near = {0: list(range(1, len(rows), 3))}
    events = label_events(index, [1], 0, [0, 2, 4], near)
    logits = 3 * torch.randn(len(events), 7, generator=torch.Generator().manual_seed(0)).double()
    logits[0, rows[0][0]] -= 2000  # the right cluster has probability 0
    focus, confusion = events.focus_confusion(logits.numpy())
    checked = 0
    for i in range(len(events)):
        part = slice(events.offsets[i], events.offsets[i + 1])
        names = [CHILD_ROLES[code] for code in events.roles[part]]
        masks = [torch.tensor([name == role for name in names]) for role in CHILD_ROLES[:3]]
        expected = focus_confusion(
            logits[i, torch.from_numpy(events.tokens[part].astype(int))], Roles(*masks)
        )
        assert (focus[i], confusion[i]) == pytest.approx([float(x) for x in expected], abs=1e-9)
        checked += len(set(names)) > 2
    assert checked
