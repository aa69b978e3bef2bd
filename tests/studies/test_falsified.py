from collections import Counter
from dataclasses import replace

import pytest

from workbench.errors import InputError
from workbench.prompts.prompt import PromptSet
from workbench.studies.falsified import deal_bystanders, shuffle_evidence, shuffle_roles
from workbench.studies.planted.models import plant_llama


def test_roles_are_dealt_out_and_nothing_else_changes(prompts):
    false = shuffle_roles(prompts, seed=1)
    changed = 0
    for old, new in zip(prompts, false, strict=True):
        roles = [[option.role for option in event.options] for event in (old, new)]
        assert Counter(roles[0]) == Counter(roles[1])
        assert old.with_role("other") == new.with_role("other") != []
        changed += roles[0] != roles[1]
        for before, after in zip(old.options, new.options, strict=True):
            kept = ("label", "token", "span")
            assert [getattr(before, k) for k in kept] == [getattr(after, k) for k in kept]
        assert (old.clean, old.far, old.near, old.evidence) == (
            *(new.clean, new.far, new.near),
            new.evidence,
        )
    assert changed >= 3  # of five; 1 in 60 shuffles deals the same roles


def test_any_scored_option_may_become_gold(prompts):
    [event] = prompts.events[:1]
    one = PromptSet("one", (event,))
    golds = Counter(shuffle_roles(one, seed).events[0].with_role("gold")[0] for seed in range(60))
    assert set(golds) == {0, 1, 2, 3, 4, 5}


def with_room(make_event, evidence_first=True, name="p0"):
    """Evidence of one token where three stood, so that there are other places."""
    event = make_event(3, name, evidence_first=evidence_first)
    start = event.evidence[0] + 1
    return replace(event, evidence=(start, start + 1))


def test_an_event_is_shuffled_the_same_way_in_any_set(prompts, make_event):
    roomy = PromptSet("roomy", tuple(with_room(make_event, name=f"p{n}") for n in range(6)))
    for shuffle, whole in ((shuffle_roles, prompts), (shuffle_evidence, roomy)):
        some = ["p1", "p3"]
        assert shuffle(whole.subset(some), 5) == shuffle(whole, 5).subset(some)
        assert shuffle(whole, 5) != shuffle(whole, 6)


@pytest.mark.parametrize("evidence_first", [True, False])
def test_false_evidence_lies_elsewhere_on_its_side_of_the_options(make_event, evidence_first):
    event = with_room(make_event, evidence_first)
    spans = [option.span for option in event.options]
    places = set()
    for seed in range(60):
        [new] = shuffle_evidence(PromptSet("one", (event,)), seed)
        places.add(new.evidence)
        assert new.options == event.options
    if evidence_first:  # 9, three tokens of evidence, 8, options
        assert places == {(0, 1), (1, 2), (3, 4), (4, 5)}
    else:
        end = max(span[1] for span in spans)
        assert all(start >= end and stop - start == 1 for start, stop in places)
        assert event.evidence not in places
        assert len(places) == len(event.clean) - end - 1


def test_an_event_without_another_place_is_left_out(event, make_event):
    """Three tokens of evidence, one before and one after: no other three."""
    roomy = with_room(make_event, name="p1")
    assert [x.id for x in shuffle_evidence(PromptSet("two", (event, roomy)))] == ["p1"]
    with pytest.raises(InputError, match="no event has tokens on its side"):
        shuffle_evidence(PromptSet("one", (event,)))


def test_a_bystander_family_is_neither_the_golds_nor_the_far_counterfactuals():
    *_, prompts = plant_llama(0, 2, 4, n_prompts=8)

    def family(label: str) -> str:
        return str(int(label.split()[1]) // 4)

    def families(event, role):
        return {family(event.options[at].label) for at in event.with_role(role)}

    # The far evidence's token says which label it names.
    asked = {(x.id, x.event): f"label {x.far[x.evidence[0]] - 10}" for x in prompts}
    golds = set()
    for seed in range(6):
        for old, new in zip(prompts, deal_bystanders(prompts, asked, family, seed), strict=True):
            [right] = families(new, "gold")
            assert families(new, "near") == {right}
            assert right not in families(old, "gold") | {family(asked[old.id, old.event])}
            assert families(new, "far") == families(old, "gold") | {family(asked[old.id, 0])}
            assert (old.clean, old.far, old.near) == (new.clean, new.far, new.near)
            golds.add((new.id, new.with_role("gold")[0]))
    assert len(golds) > 8
    with pytest.raises(InputError, match="no event has a bystander family"):
        deal_bystanders(prompts, asked, lambda label: "one", 0)
