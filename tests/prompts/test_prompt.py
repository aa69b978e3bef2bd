from dataclasses import replace
from types import SimpleNamespace

import pytest

from workbench.errors import InputError
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet

EVENT = DecisionEvent(
    id="p0",
    event=1,
    clean=(1, 2, 3, 4, 5, 6),
    far=(1, 9, 9, 4, 5, 6),
    near=(8, 4, 5, 6),
    aligned_suffix=3,
    evidence=(1, 3),
    options=(
        Option("E11.65", 20, "gold", (3, 4)),
        Option("E11.9", 21, "near", (4, 5)),
        Option("I10", 22, "far", (3, 5)),
        Option("J45", 23, "other", (5, 6)),
    ),
)


def with_option(index: int, **changes) -> dict:
    options = list(EVENT.options)
    options[index] = replace(options[index], **changes)
    return {"options": tuple(options)}


def with_families(*names: str) -> dict:
    named = zip(EVENT.options, names, strict=True)
    return {"options": tuple(replace(option, family=name) for option, name in named)}


REFUSALS = {
    "empty variant": ({"far": ()}, "variant 'far' is empty"),
    "evidence is empty": ({"evidence": (2, 2)}, "evidence [2, 2] is outside"),
    "evidence starts before": ({"evidence": (-1, 2)}, "evidence [-1, 2] is outside"),
    "span ends behind": (
        with_option(2, span=(3, 7)),
        "options[2].span [3, 7] is outside the clean prompt of 6 tokens or empty",
    ),
    "event": ({"event": -1}, "events count from 0"),
    "label blank": (with_option(1, label=" "), "options[1].label is blank"),
    "label twice": (with_option(1, label="E11.65"), "options[0] and options[1] are one label"),
    "far is clean": ({"far": EVENT.clean}, "variants 'clean' and 'far' are the same tokens"),
    "near is clean": ({"near": EVENT.clean}, "variants 'clean' and 'near' are the same tokens"),
    "near is far": ({"near": EVENT.far}, "variants 'far' and 'near' are the same tokens"),
    "no token": ({"near": (-1, 4, 5, 6)}, "variant 'near' has a token below 0"),
    "shared token": (with_option(2, token=20), "options[0] and options[2] share token 20"),
    "negative token": (with_option(1, token=-1), "options[1].token is -1, below 0"),
    "two golds": (
        with_option(1, role="gold"),
        "needs exactly one gold option, and near and far ones; got 2 gold, 0 near, 1 far, 1 other",
    ),
    "no gold": (with_option(0, role="near"), "got 0 gold, 2 near"),
    "no near": (with_option(1, role="other"), "got 1 gold, 0 near"),
    "no far": (with_option(2, role="other"), "1 near, 0 far"),
    "family of some": (
        with_option(1, family="E11"),
        "options[0] has no family, others have; name the family of every option or of none",
    ),
    "near of another family": (
        with_families("E11", "I1", "I1", "J"),
        "options[1].family must be gold's: its role is near",
    ),
    "far of gold's family": (
        with_families("E11", "E11", "E11", "J"),
        "options[2].family must not be gold's: its role is far",
    ),
    "no suffix": ({"aligned_suffix": 0}, "aligned_suffix is 0, must be at least 1"),
    "suffix is not shared": (
        {"aligned_suffix": 4},
        "variant 'far' does not share the last 4 tokens with 'clean'",
    ),
    "suffix is longer than a variant": (
        {"aligned_suffix": 5, "far": EVENT.clean},
        "variant 'near' does not share the last 5 tokens with 'clean'",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refused_event(changes, message):
    with pytest.raises(InputError) as refusal:
        replace(EVENT, **changes)
    assert str(refusal.value).startswith(f"prompt 'p0' event {changes.get('event', 1)}: ")
    assert message in str(refusal.value)


def test_unknown_role_is_refused():
    strange = replace(EVENT.options[1])
    object.__setattr__(strange, "role", "close")  # the annotations are enforced under test
    with pytest.raises(InputError, match=r"options\[1\].role is not one of gold, near, far"):
        replace(EVENT, options=(EVENT.options[0], strange))


def test_roles_and_tokens():
    assert [EVENT.with_role(role) for role in ("gold", "near", "far", "other")] == [
        [0], [1], [2], [3],
    ]  # fmt: skip
    assert EVENT.option_tokens == [20, 21, 22, 23]


def test_prompt_set_keeps_order_and_groups_events_by_prompt():
    events = [replace(EVENT, id=name, event=k) for name, k in [("b", 0), ("a", 0), ("b", 1)]]
    prompts = PromptSet("task", tuple(events))
    assert list(prompts) == events
    assert prompts.prompt_ids == ["b", "a"]
    assert list(prompts.subset(["b"])) == [events[0], events[2]]


def test_prompt_set_refuses_repeats_and_emptiness():
    with pytest.raises(InputError, match="prompt 'p0' event 1 occurs twice"):
        PromptSet("task", (EVENT, EVENT))
    with pytest.raises(InputError, match="prompt set 'task' holds no events"):
        PromptSet("task", ())
    with pytest.raises(InputError, match="holds no events"):
        PromptSet("task", (EVENT,)).subset(["p1"])


def test_hash_is_of_the_events_and_not_of_the_name():
    prompts = PromptSet("task", (EVENT,))
    assert prompts.sha256 == PromptSet("other", (EVENT,)).sha256
    assert prompts.sha256 != PromptSet("task", (replace(EVENT, event=2),)).sha256


def test_families_join_prompts_by_name_by_shared_labels_and_by_a_third():
    def event(name: str, gold: str, family: str | None, near: str = "") -> DecisionEvent:
        of = {"gold": gold, "near": near or f"near of {name}"}
        options = [replace(x, label=of.get(x.role, f"{x.label} {name}")) for x in EVENT.options]
        return replace(EVENT, id=name, options=tuple(options), family=family)

    events = [
        event("a", "E1", "E"),
        event("b", "E2", "E"),  # of the same family as a, by name
        event("c", "J1", None),
        event("d", "J2", None, near="J1"),  # shares a label with c
        event("e", "E1", "J", near="J2"),  # links all of these
        event("f", "K1", None),
    ]
    apart = PromptSet("task", tuple(events[:4])).families
    assert [apart[x] == apart[y] for x, y in ("ab", "cd", "ac")] == [True, True, False]
    families = PromptSet("task", tuple(events)).families
    assert len({families[name] for name in "abcde"}) == 1
    assert families["f"] != families["a"]


def test_the_tokenizer_is_no_part_of_an_event(tokenizer):
    bare = PromptSet("a task", (EVENT,))
    known = bare.with_tokenizer(tokenizer)
    assert known == bare and hash(known) == hash(bare) and known.sha256 == bare.sha256
    assert known.subset(["p0"]).events[0].tokenizer is tokenizer
    assert known.events[0].text("far") == tokenizer.decode(EVENT.far)
    assert known.events[0].str_tokens() == [tokenizer.decode([token]) for token in EVENT.clean]


def test_the_tokenizer_of_a_model(tokenizer):
    bare = PromptSet("a task", (EVENT,))
    assert bare.with_tokenizer(SimpleNamespace(tokenizer=tokenizer)).events[0].text()
    with pytest.raises(InputError, match="the model has no tokenizer"):
        bare.with_tokenizer(SimpleNamespace(tokenizer=None))
