import random

import pytest

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.labels.sides import side_of, without_side
from workbench.prompts.chain import question_cases
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.events import make_events
from workbench.prompts.laterality import LateralityConfig, LateralityTask, ReasonedLaterality
from workbench.prompts.laterality_chain import laterality_stages
from workbench.prompts.make import settled_template
from workbench.prompts.prompt import PromptSet
from workbench.prompts.references import in_order, side_path, words_path
from workbench.prompts.templates import PlainTemplate


@pytest.fixture(scope="module")
def task(space) -> LateralityTask:
    return LateralityTask(space, {category(label.id) for label in space})


@pytest.fixture(scope="module")
def drawn(task):
    return [task.draw(f"p{number}", random.Random(number)) for number in range(60)]


def meaning(prompt, space) -> list[str]:
    """What a careful reader takes each mention to mean, by the note alone: side by side."""
    sides: dict[int, str] = {}
    for place in in_order(prompt.mentions):
        words = prompt.mentions[place].side.replace(".", "").split()
        numbers = [int(word) for word in words if word.isdigit()]
        whole = prompt.mentions[place].words.split()
        to = numbers[0] if numbers else int(whole[1]) if whole[0] == "as" else None
        if to is None:
            sides[place] = {"l": "left", "r": "right"}[words[0][0]]
        else:
            other = {"same": 0, "ipsilateral": 0}.get(words[0], 1)
            there = sides[to - 1]
            sides[place] = there if not other else {"left": "right", "right": "left"}[there]
    return [sides[place] for place in range(len(prompt.mentions))]


def test_labels_are_what_the_note_says_by_reference(drawn, task, space):
    deepest = 0
    for prompt in drawn:
        assert [side_of(space[gold].text) for gold in prompt.golds] == meaning(prompt, space)
        for place, mention in enumerate(prompt.mentions):
            if mention.words_of is not None:
                assert mention.text.startswith(f"as {mention.words_of + 1} , ")
                there, here = (
                    without_side(space[prompt.golds[at]].text) for at in (mention.words_of, place)
                )
                assert there == here
            deepest = max(deepest, task.depth(prompt, place))
    assert deepest >= 3


def test_families_are_a_code_its_mirror_image_a_sibling_and_its_own(drawn, space):
    for prompt in drawn:
        assert len(prompt.candidates) == len(set(prompt.candidates)) == 20
        for family in prompt.families:
            sides = [side_of(space[label].text) for label in family]
            stems = [without_side(space[label].text) for label in family]
            assert sides == ["left", "right"] * 2
            assert stems[0] == stems[1] != stems[2] == stems[3]
            assert len({category(label) for label in family}) == 1
        mentioned = [set(family) & set(prompt.golds) for family in prompt.families]
        assert sum(map(bool, mentioned)) == 3


@pytest.mark.parametrize("phase", ["far", "near"])
def test_counterfactuals_change_one_statement_and_all_that_refers_to_it(drawn, task, space, phase):
    for number, prompt in enumerate(drawn):
        event = number % 6
        found = task.counterfactuals(prompt, event, random.Random(number))
        changed = found.far if phase == "far" else found.near
        place = found.words_at if phase == "far" else found.side_at
        texts = [(a.text, b.text) for a, b in zip(prompt.mentions, changed.mentions, strict=True)]
        assert [at for at, (a, b) in enumerate(texts) if a != b] == [place]
        assert [side_of(space[gold].text) for gold in changed.golds] == meaning(changed, space)
        assert changed.golds[event] != prompt.golds[event]
        paths = words_path if phase == "far" else side_path
        for at, (one, other) in enumerate(zip(prompt.golds, changed.golds, strict=True)):
            assert (one != other) == (place in paths(prompt.mentions, at))
        family = prompt.family_of(prompt.golds[event])
        assert (changed.golds[event] in family) == (phase == "near")
        if phase == "far":
            assert not set(prompt.golds) & set(prompt.family_of(changed.golds[event]))


def test_chains_decide_in_order_of_reference_and_end_in_the_labels(drawn, task, space):
    for prompt in drawn:
        chain, control = task.chain(prompt), task.control_chain(prompt)
        assert sorted(chain) == sorted(control)
        shortlists = [step for step in chain if " in " in step][:6]
        assert chain[:6] == shortlists
        assert all(" side " in step for step in control[:6])
        numbers = [int(step.split()[0]) - 1 for step in chain[:6]]
        assert numbers == in_order(prompt.mentions)
        for place, gold in enumerate(prompt.golds):
            last = [step for step in chain if step.split()[0] == str(place + 1)][-1]
            assert last == f" {place + 1} is {space[gold].text} {prompt.letters[gold]}"


def test_stages_follow_the_decision_in_either_format():
    chain = [" 2 in arm A", " 1 as 2 in arm A", " 2 side left", " 2 is Left arm A", " 1 not B"]
    assert laterality_stages(0, chain) == ["before", "coarse", "other", "other", "fine"]
    assert laterality_stages(1, chain) == ["coarse", "other", "other", "fine", "after"]
    assert laterality_stages(4, chain) == ["before"] * 5
    control = [" 1 side right", " 2 side left", " 1 in arm A", " 1 not Left arm B"]
    assert laterality_stages(0, control) == ["other", "other", "coarse", "fine"]
    assert laterality_stages(1, control) == ["before", "other", "after", "after"]


def test_answers_are_read_by_number(drawn, task):
    prompt = drawn[0]
    words = " ".join(task.answer(prompt)).split()
    assert task.read_answer(prompt, words) == prompt.golds
    turned = [*words[2:], *words[:2]]
    assert task.read_answer(prompt, turned) == prompt.golds
    twice = task.read_answer(prompt, [*words, *words[:2]])
    assert twice[0] == "?" and twice[1:] == prompt.golds[1:]
    assert task.metrics(prompt, task.read_answer(prompt, [*words, "9", "A"]))["in_order"] == 0
    assert task.read_answer(prompt, words[:-2])[5] == "?"


def test_events_ask_by_number_and_have_evidence_for_each_phase(task, setting):
    template, tokenizer = setting
    prompts = make_events(task, template, tokenizer, n_prompts=20, seed=0)
    for event in prompts:
        text = tokenizer.decode(event.clean)
        cue = "answer: " if template.name == "plain" else "<reply>"
        assert text.endswith(f"{cue}{event.event + 1}")
        roles = [option.role for option in event.options]
        assert (roles.count("near"), roles.count("far")) == (3, 16)
        assert event.fine_evidence is not None
        start, end = event.evidence
        fine_start, fine_end = event.fine_evidence
        assert end <= fine_start or fine_end <= start
        shared = len(event.clean) - event.aligned_suffix
        assert max(end, fine_end) <= shared <= min(option.span[0] for option in event.options)
        side = tokenizer.decode(event.clean[fine_start:fine_end]).split()[0]
        assert side in ("left", "right", "l", "lt", "r", "rt", "same", "other", "opposite") or (
            side.endswith("lateral")
        )


def test_a_mention_that_refers_to_others_is_not_shown_alone(task, chat_tokenizer):
    single = ChatTemplate(chat_tokenizer, "chat-single")
    with pytest.raises(InputError, match="mentions refer to one another"):
        make_events(task, single, chat_tokenizer, n_prompts=1, seed=0)


def test_decisions_in_a_chain_have_the_steps_of_the_chain_as_evidence(task, setting):
    template, tokenizer = setting
    reasoned = ReasonedLaterality(task.space, task.categories)
    if template.name != "plain":
        with pytest.raises(InputError, match="chains for --template plain alone"):
            make_events(reasoned, template, tokenizer, n_prompts=1, seed=0)
        return
    for event in make_events(reasoned, template, tokenizer, n_prompts=12, seed=0):
        number = str(event.event + 1)
        for name in ("clean", "far", "near"):
            question, chain = tokenizer.decode(event.variant(name)).split("\nreason:")
            assert chain.endswith(f"\nanswer: {number}")
            assert "options:" in question
        shortlist = tokenizer.decode(event.clean[slice(*event.evidence)])
        assert shortlist.split()[0] == number and " in " in shortlist
        assert event.fine_evidence is not None
        miss = tokenizer.decode(event.clean[slice(*event.fine_evidence)])
        assert miss.split()[:2] == [number, "not"]
        assert event.clean[-event.aligned_suffix :] == tuple(
            tokenizer(f"\nanswer: {number}", add_special_tokens=False)["input_ids"]
        )
    with pytest.raises(InputError, match="holds a chain already"):
        question_cases(PromptSet("laterality", (event,)), tokenizer)


def test_chains_are_asked_for_as_they_are_written(chat_tokenizer):
    """A teacher that has a chat template, and was not trained here."""
    assert settled_template("auto", None, chat_tokenizer, "laterality-chain") == "plain"
    assert settled_template("auto", None, chat_tokenizer, "laterality") == "chat"


def test_an_event_of_the_mentions_that_a_function_names(task, tokenizer):
    def deep(prompt):
        return [at for at in range(6) if task.depth(prompt, at) >= 2][:1]

    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=5, seed=0, event=deep)
    for event in prompts:
        note = tokenizer.decode(event.clean).partition("options:")[0]
        mention = note.split(f" {event.event + 1} . ")[1].partition(" ;")[0]
        assert mention.startswith("as ")
        evidence = tokenizer.decode(event.clean[slice(*event.evidence)])
        assert evidence not in mention  # it is where the words are stated


def test_sizes_that_leave_no_family_for_the_far_counterfactual_are_refused():
    with pytest.raises(InputError, match="n_mentioned is 5, must be at least 1, below n_families"):
        LateralityConfig(n_mentioned=5)
