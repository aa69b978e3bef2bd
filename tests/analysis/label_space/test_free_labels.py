from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.distillation import build

from workbench.analysis.label_space.cases import FreeCase, FreeLabels, iter_cases
from workbench.analysis.label_space.free_labels import (
    COLUMNS,
    _EndByLetter,
    decode_labels,
    event_logits,
    free_summary,
    free_trajectory,
)
from workbench.analysis.label_space.label_events import label_events
from workbench.errors import InputError
from workbench.labels.index import LabelIndex
from workbench.models.hooked import HookedModel

N_CASES = 3


@pytest.fixture(scope="module")
def speller(tokenizer: Any) -> HookedModel:
    """A random model with the vocabulary of the label texts."""
    sizes = {"context": 2048, "initializer_range": 0.3, "eos_token_id": None}
    model = build(n_layers=1, vocab_size=len(tokenizer), **sizes)
    return HookedModel.from_pretrained_model(model, tokenizer)


@pytest.fixture(scope="module")
def free_labels(space: Any, tokenizer: Any) -> FreeLabels:
    return FreeLabels(space, tokenizer)


@pytest.fixture(scope="module")
def cases(seen_task: Any, tokenizer: Any, free_labels: FreeLabels) -> list[FreeCase]:
    return list(islice(iter_cases(seen_task, tokenizer, free_labels, seed=0), N_CASES))


@pytest.fixture(scope="module")
def table(speller: HookedModel, cases: list[FreeCase], free_labels: FreeLabels) -> Any:
    return free_trajectory(speller, cases, free_labels)


def test_values_are_those_of_a_forward_of_each_prefix(speller, cases, free_labels, table):
    case, index = cases[0], free_labels.index
    label = index.label_tokens(case.gold).tolist()
    near = {int(number) for number in case.near} - set(case.golds)
    for variant in ("clean", "near"):
        rows = table[(table["id"] == case.id) & (table["variant"] == variant)]
        for row in rows.to_dict("records"):
            written = label[: row["token_index"]]
            logits = speller.run([[*case.prompts[variant], *written]])[0].logits.double()
            node = index.find(written)
            assert node is not None
            masses = {"gold": 0.0, "near": 0.0, "far": 0.0}
            allowed = index.children(node)
            for at, token in enumerate(allowed.tokens.tolist()):
                below = set(index.order[allowed.bounds[at] : allowed.bounds[at + 1]].tolist())
                ends = [end for end in case.ends if end not in allowed.tokens]
                spelled = ends if token == index.end else [token]
                mass = float(logits[spelled].exp().sum())
                if case.gold in below:
                    masses["gold"] += mass
                elif not below & set(case.golds):
                    masses["near" if below & near else "far"] += mass
            cluster = masses["gold"] + masses["near"]
            assert row["focus"] == pytest.approx(cluster / (cluster + masses["far"]), abs=1e-4)
            assert row["confusion"] == pytest.approx(masses["near"] / cluster, abs=1e-4)


def test_places_along_the_label(cases, free_labels, table):
    assert list(table.columns) == COLUMNS
    assert (table["n_options"] > 1).all()
    for case in cases:
        rows = table[table["id"] == case.id]
        sizes = rows.groupby("variant").size()
        assert sizes.nunique() == 1 and len(sizes) == 3
        assert rows["token_index"].min() == 0  # labels begin in many ways
        gold = free_labels.tokens(case.labels["clean"])
        near = free_labels.tokens(case.labels["near"])
        parting = rows.loc[rows["from_near"] == 0, "token_index"].unique()
        for place in parting:
            assert gold[:place] == near[:place] and gold[place:][:1] != near[place:][:1]
        assert rows["label_share"].between(0, 1).all()


def test_a_letter_that_is_a_word_does_not_end_the_label(speller, cases, free_labels):
    case, end = cases[0], 0
    letter, other = case.ends[:2]
    # One label is complete where another goes on with the first letter.
    index = LabelIndex.from_tokens(np.array([7, 7, letter]), np.array([1, 2]), end=end)
    events = label_events(index, [5, 6], 0, [0], {0: [1]})
    one = FreeCase("p", 0, case.prompts, 1, case.labels, 0, (0,), (1,), (letter, other))
    logits = event_logits(speller, events, one, index)
    assert logits[-1, end] == pytest.approx(logits[-1, other])


def test_summary_averages_only_where_there_is_something_to_lose(table):
    summary = free_summary(table, n_resamples=50)
    first = summary[(summary["align"] == "token") & (summary["variant"] == "clean")].iloc[0]
    rows = table[(table["variant"] == "clean") & (table["token_index"] == 0)]
    assert first["n_focus"] == (rows["n_far"] > 0).sum() == N_CASES
    assert first["focus"] == pytest.approx(rows["focus"].mean())
    assert np.isnan(first["focus_low"])  # few prompts have no interval
    nowhere = summary[summary["n_confusion"] == 0]
    assert nowhere["confusion"].isna().all()
    shares = summary.loc[summary["align"] == "share", "place"]
    assert shares.between(0, 1).all()


def test_a_letter_ends_a_constrained_label():
    end, letter, word = 0, 3, 7
    index = LabelIndex.from_tokens(np.array([word, word, word]), np.array([1, 2]), end=end)
    constraint = _EndByLetter(index, 1, [[letter], [letter]])
    scores = torch.zeros(2, 9)
    scores[:, letter] = torch.tensor([5.0, -5.0])
    masked = constraint(torch.tensor([[1, word], [1, word]]), scores)
    assert masked.argmax(dim=1).tolist() == [end, word]
    assert masked[:, letter].isneginf().all()


def test_constrained_decoding_writes_labels_only(
    speller, cases, free_labels, tokenizer, monkeypatch
):
    line_end = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
    decoded = decode_labels(speller, cases, free_labels, line_end=line_end, batch_size=2)
    constrained = decoded[decoded["decoding"] == "constrained"]
    assert constrained["is_label"].all() and len(constrained) == N_CASES
    assert all(label in free_labels.space for label in constrained["label"])
    # A model that writes the gold label and its letter is right without the constraint too.
    right = [[*free_labels.tokens(case.labels["clean"]), case.ends[0]] for case in cases]
    right[1] = right[1][:-1]  # never closed
    monkeypatch.setattr(
        "workbench.analysis.label_space.free_labels.greedy_tokens", lambda *_, **__: right
    )
    decoded = decode_labels(speller, cases, free_labels, line_end=line_end)
    free = decoded[decoded["decoding"] == "free"]
    assert free["exact"].tolist() == [True, False, True]
    assert free["same_cluster"].tolist() == [True, False, True]


def test_what_cannot_be_followed_is_refused(speller, free_labels, table):
    with pytest.raises(InputError, match="at least one case"):
        free_trajectory(speller, [], free_labels)
    with pytest.raises(InputError, match="lacks column 'n_far'"):
        free_summary(table.drop(columns="n_far"))
    with pytest.raises(InputError, match="is empty"):
        free_summary(table.iloc[:0])
