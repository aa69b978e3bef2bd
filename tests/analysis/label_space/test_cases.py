from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from workbench.analysis.label_space.cases import FreeLabels, decision_prompts, iter_cases
from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.coding import CodingTask
from workbench.prompts.prompt import VARIANTS


@pytest.fixture(scope="module")
def free_labels(space: Any, tokenizer: Any) -> FreeLabels:
    return FreeLabels(space, tokenizer)


@pytest.fixture(scope="module")
def cases(seen_task: CodingTask, tokenizer: Any, free_labels: FreeLabels) -> list[Any]:
    return list(islice(iter_cases(seen_task, tokenizer, free_labels, seed=0), 12))


def test_labels_of_one_text_share_a_number(tokenizer):
    texts = {"A1": "Cyst of spleen", "A2": "Cyst of liver", "A3": "Cyst of spleen"}
    space = LabelSpace("small", [Label(name, text, ("A",)) for name, text in texts.items()])
    labels = FreeLabels(space, tokenizer)
    assert len(labels) == 2
    assert labels.number("A3") == labels.number("A1") != labels.number("A2")
    assert labels.label_id(labels.number("A3")) == "A1"
    assert labels.near("A3") == (labels.number("A2"),)
    assert labels.tokens("A3") == labels.tokens("A1")


def test_near_labels_are_the_rest_of_the_cluster(space, free_labels):
    near = {free_labels.label_id(number) for number in free_labels.near("E11.65")}
    assert near <= set(space.members(space.cluster("E11.65")))
    assert near and "E11.65" not in near


def test_the_prompt_ends_where_its_label_begins(space, tokenizer, free_labels, cases):
    for case in cases:
        for name in VARIANTS:
            text = tokenizer.decode(case.prompts[name])
            assert text.endswith(f"\n {case.event + 1} is")
            # The coarse step of this mention would name its family.
            assert f"\n {case.event + 1} in" not in text
            assert text.count(" in ") >= case.event
        written = tokenizer.decode(free_labels.tokens(case.labels["clean"]))
        assert written == " " + space[case.labels["clean"]].text


def test_variants_share_everything_after_the_mention(tokenizer, cases):
    for case in cases:
        tails = {case.prompts[name][-case.aligned_suffix :] for name in VARIANTS}
        assert len(tails) == 1
        assert "options:" in tokenizer.decode(tails.pop())
        assert len(set(case.prompts.values())) == 3


def test_a_case_depends_on_its_number_alone(seen_task, tokenizer, free_labels, cases):
    again = list(islice(iter_cases(seen_task, tokenizer, free_labels, seed=0), 3))
    assert again == cases[:3]
    other = next(iter_cases(seen_task, tokenizer, free_labels, seed=1))
    assert other.prompts != cases[0].prompts


def test_options_lead_to_the_candidates_whose_text_they_begin(tokenizer, free_labels, cases):
    decisions = [case for case in cases if case.decision is not None]
    assert decisions
    for case in decisions:
        event = case.decision
        gold = free_labels.tokens(case.labels["clean"])
        depth = len(event.clean) - len(case.prompts["clean"])
        assert event.clean[len(case.prompts["clean"]) :] == gold[:depth]
        by_token = {option.token: option for option in event.options}
        for option in event.options:
            tokens = free_labels.tokens(option.label)
            assert tokens[:depth] == gold[:depth]
            letters = case.ends
            assert option.token in (letters if len(tokens) == depth else [tokens[depth]])
            assert event.clean[slice(*option.span)][: len(tokens)] == tokens
        # The labels that the counterfactuals mention go another way here, each its role's.
        for name in VARIANTS:
            tokens = free_labels.tokens(case.labels[name])
            assert tokens[:depth] == gold[:depth]
            role = "gold" if name == "clean" else name
            if len(tokens) > depth:
                assert by_token[tokens[depth]].role == role


def test_decisions_are_taken_in_order_and_passed_over_where_there_is_none(cases):
    found = decision_prompts(cases, 3, task="free")
    usable = [case.decision for case in cases if case.decision is not None]
    assert list(found) == usable[:3]
    without = [replace(case, decision=None) for case in cases]
    with pytest.raises(InputError, match="only 0 of 20 cases"):
        decision_prompts(without, 1, task="free")


def test_prompts_that_never_fit_are_refused(seen_task, tokenizer, free_labels):
    with pytest.raises(InputError, match="context"):
        next(iter_cases(seen_task, tokenizer, free_labels, seed=0, context=20))
