from dataclasses import replace

import pytest
import torch
from fixtures.tiny_runs import ARCHITECTURES, save_model

from workbench.analysis.curves import filter_heads as module
from workbench.analysis.curves.filter_heads import (
    filter_scores,
    other_list,
    pairs,
    transported_z,
    turned,
)
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, Option
from workbench.studies.planted.models import Planted, plant

LABELS = ("gold", "near", "far", "far", "far")


@pytest.fixture(scope="module")
def planted() -> Planted:
    """The decision asks the evidence, and what it finds steers the query of another head."""
    return plant(1, 4, 4, 2, kind="query", n_prompts=8)


def lettered(name: str, first: int, letters: range = range(50, 55)) -> DecisionEvent:
    """Options of two tokens of text and the letter that selects them; evidence before them."""
    texts = [(first + 2 * at, first + 2 * at + 1) for at in range(5)]
    tokens = [
        token for text, letter in zip(texts, letters, strict=True) for token in (*text, letter)
    ]
    options = tuple(
        Option(f"{name} {at}", letter, role, (2 + 3 * at, 5 + 3 * at))
        for at, (letter, role) in enumerate(zip(letters, LABELS, strict=True))
    )
    clean, far, near = ((first, evidence, *tokens, 60) for evidence in (1, 2, 3))
    return DecisionEvent(name, 0, clean, far, near, 16, (1, 2), options)


def by_hand(planted: Planted, readout: str, head: tuple[int, int], last: int) -> float:
    """Mean over pairs, one query tensor changed in a plain forward."""
    model, gains = planted.model, []
    name = f"blocks.{head[0]}.attn.hook_q"
    for source, target in pairs(planted.prompts.events):
        query = model.run([source.clean], [name])[0].activations[name][-last:, head[1]]

        def put(q, hook, query=query):
            q = q.clone()
            q[0, -last:, head[1]] = query
            return q

        tokens, at = torch.tensor([target.tokens]), [len(target.tokens) - 1]
        runs = [model.logits_at(tokens, at, hooks)[0, 0] for hooks in ([], [(name, put)])]
        before, after = (target.gain(run[target.options], readout) for run in runs)
        gains.append(float(after - before))
    return sum(gains) / len(gains)


@pytest.mark.parametrize(("readout", "part"), [("focus", "cluster"), ("confusion", "label")])
def test_the_head_whose_query_holds_the_predicate_comes_first(planted, readout, part):
    """The head that asks the evidence brings the predicate as a value, not in its query."""
    found = filter_scores(planted.model, planted.prompts.events, readout)
    finder, asker = (planted.place[f"{part}_{name}"] for name in ("finder", "asker"))
    assert divmod(int(found.argmax()), found.shape[1]) == finder
    assert found[finder] > 3 and abs(found[asker]) < 0.1


@pytest.mark.parametrize("last", [1, 3])
def test_each_head_is_as_one_query_changed_in_a_plain_forward(planted, last):
    found = filter_scores(planted.model, planted.prompts.events, "focus", last=last)
    for head in (planted.place["cluster_finder"], planted.place["label_finder"], (0, 0)):
        expected = by_hand(planted, "focus", head, last)
        assert found[head].item() == pytest.approx(expected, abs=1e-3)


def test_the_answer_follows_the_queries_of_the_right_heads_alone(planted):
    events = planted.prompts.events
    finder, asker = (planted.place[f"cluster_{name}"] for name in ("finder", "asker"))
    assert turned(planted.model, events, [finder]) == (8, 8)
    assert turned(planted.model, events, [asker, (0, 0)]) == (0, 8)
    assert turned(planted.model, events, []) == (0, 8)


def test_where_options_are_marked_before_the_question_no_query_carries_the_predicate():
    """Their eager strategy: options attend to the evidence, and the decision reads the marks."""
    planted = plant(seed=1, kind="chains", n_prompts=8)
    for readout in ("focus", "confusion"):
        assert filter_scores(planted.model, planted.prompts.events, readout).abs().max() < 0.1
    every = [(layer, head) for layer in range(3) for head in range(4)]
    assert turned(planted.model, planted.prompts.events, every) == (0, 8)


def test_prompts_that_are_answered_wrongly_do_not_count(planted):
    """Of the source and of the target: the counterfactual's answer is not the gold option's."""
    events = [replace(event, clean=event.far, far=event.clean) for event in planted.prompts]
    with pytest.raises(InputError, match="the model answers rightly"):
        filter_scores(planted.model, events, "focus")
    at, wrong = next(
        (at, events[other])
        for at, source in enumerate(planted.prompts)
        for other in range(at + 1, len(events))
        if other_list(source, events[other], torch.Generator()) is not None
    )
    with pytest.raises(InputError, match="no two of 2 events"):
        filter_scores(planted.model, [planted.prompts.events[at], wrong], "focus")


def test_places_keep_their_letters_and_words_come_with_their_text():
    source, target = lettered("source", 10), lettered("target", 30)
    made = other_list(source, target, torch.Generator().manual_seed(0))
    assert made is not None
    assert made.options == target.option_tokens and made.answer == 0
    assert len(made.tokens) == len(target.clean) and made.tokens[:2] == [30, 1]
    for at, (item, place) in enumerate(zip((0, 1), made.moved, strict=True)):
        assert target.options[place].role == "far"
        start, end = target.options[place].span
        text = [10 + 2 * item, 11 + 2 * item]
        assert made.tokens[start:end] == [*text, target.options[place].token], at
    words = lettered("source", 10, range(20, 25))
    made = other_list(words, target, torch.Generator().manual_seed(0))
    assert made is not None
    assert [made.options[place] for place in made.moved] == [20, 21]
    assert [made.tokens[target.options[place].span[1] - 1] for place in made.moved] == [20, 21]


def test_a_list_that_holds_such_an_item_is_no_other_list():
    source, target = lettered("source", 10), lettered("target", 30)
    label = source.options[1].label
    held = replace(target.options[4], label=label)
    assert (
        other_list(source, replace(target, options=(*target.options[:4], held)), torch.Generator())
        is None
    )
    one, other = (replace(event, family="E11") for event in (source, target))
    assert other_list(one, other, torch.Generator()) is None
    few = tuple(replace(option, role="near") for option in target.options[2:4])
    options = (*target.options[:2], *few, target.options[4])
    assert other_list(source, replace(target, options=options), torch.Generator()) is None
    assert list(pairs([source, replace(source, event=1)])) == []  # of one prompt


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_own_query_gives_own_output(architecture, tmp_path):
    model = HookedModel.load(save_model(architecture, tmp_path / "model"), device="cpu")
    source, base = [5, 6, 7, 8], [1, 2, 3, 4, 5, 6]
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(2)]
    run = model.run([base], names)[0]
    plain = torch.stack([run.activations[name][-2:] for name in names])
    torch.testing.assert_close(transported_z(model, base, base, 2), plain)
    assert (transported_z(model, source, base, 2) - plain).abs().amax(dim=-1).min() > 1e-4


def test_rows_of_layers_do_not_depend_on_the_batch(model, event, monkeypatch):
    whole = transported_z(model, event.clean, event.far, 2)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    torch.testing.assert_close(transported_z(model, event.clean, event.far, 2), whole)


def test_what_cannot_be_moved_is_refused(model, prompts):
    with pytest.raises(InputError, match="readout 'loss'"):
        filter_scores(model, prompts.events, "loss")
    with pytest.raises(InputError, match="last 0 tokens: must be at least 1"):
        filter_scores(model, prompts.events, "focus", last=0)
    with pytest.raises(InputError, match="no two of 5 events"):
        filter_scores(model, prompts.events, "focus")
