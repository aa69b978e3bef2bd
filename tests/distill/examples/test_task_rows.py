import random

import pytest

from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.task_rows import question, ruled_reply, task_row
from workbench.labels.icd10cm import category
from workbench.prompts.laterality import ReasonedLaterality
from workbench.prompts.references import words_path
from workbench.prompts.templates import PlainTemplate


@pytest.fixture(scope="module")
def sides(space):
    return ReasonedLaterality(space, {category(label.id) for label in space})


@pytest.fixture(params=["laterality", "coding"])
def task(request, sides, small_task):
    return sides if request.param == "laterality" else small_task


def drawn(task, number=3):
    return task.draw(str(number), random.Random(number))


def ruled_row(task, prompt):
    row = task_row(task, prompt, ruled_reply(task, prompt))
    assert row is not None
    return row


def read(row, place):
    return row["prompt" if place.get("in") == "prompt" else "chain"][slice(*place["span"])]


def of(row, key, event):
    return [read(row, place) for place in row[key] if place["decision"] == event]


def test_places_of_a_chain_about_sides(sides, space):
    for number in range(20):
        prompt = drawn(sides, number)
        row = ruled_row(sides, prompt)
        letters = prompt.letters
        for event, gold in enumerate(prompt.golds):
            letter = letters[gold]
            (own,) = of(row, "early", event)
            assert own.startswith(f"{event + 1} ")
            family = [letters[label] for label in prompt.family_of(gold)]
            assert own.split()[-4:] == sorted(family)
            ruled_out, right = of(row, "late", event)
            spoken = [part["option"] for part in row["late"] if part["decision"] == event]
            assert ruled_out.split()[-1] == list(letters.values())[spoken[0]]
            assert spoken[1] == row["gold"][event]
            assert right == f"{event + 1} is {space[gold].text} {letter}"
            assert ruled_out.startswith(f"{event + 1} not ")
            named, side = of(row, "shortlist", event)
            assert named == letter and side.startswith(f"{event + 1} side ")
            miss = ruled_out.split()[-1]
            others = {x for x in family if x != letter}
            near = [place for place in row["near"] if place["decision"] == event]
            inside = sorted(read(row, place) for place in near if place["in"] == "chain")
            assert inside == sorted([*others, miss])
            shown = {read(row, place).split()[-1] for place in near if place["in"] == "prompt"}
            assert shown == others
            assert row["options"][row["gold"][event]]["label"] == letter == row["labels"][event]
            options = {row["options"][at]["label"] for at in row["near_options"][event]}
            assert options == others
            source = prompt.mentions[words_path(prompt.mentions, event)[-1]]
            assert row["prompt"][slice(*row["evidence"][event])] == f" {source.words}"


def test_places_of_a_chain_of_letters(small_task):
    prompt = drawn(small_task)
    row = ruled_row(small_task, prompt)
    for event, gold in enumerate(prompt.golds):
        letter = prompt.letters[gold]
        assert of(row, "shortlist", event) == [letter]
        assert of(row, "late", event) == [f"{event + 1} is {small_task.space[gold].text} {letter}"]
        assert [step[:4] for step in of(row, "early", event)] == [f"{event + 1} in"]


def test_samples_of_rows_are_prompt_chain_and_answer_in_tokens(task, qwen_tokenizer):
    rows = [ruled_row(task, drawn(task, number)) for number in (3, 4)]
    samples = examples_from_chats(rows, qwen_tokenizer, template="plain")
    for row, sample in zip(rows, samples, strict=True):
        text = row["prompt"] + row["chain"] + "\n" + row["answer"]
        assert qwen_tokenizer.decode(sample["ids"][:-1]) == text
        assert len(sample["option_spans"]) == len(row["options"])
        asked = [sample["ids"][place + 1] for place in sample["decisions"]]
        assert asked == [sample["option_tokens"][at] for at in row["gold"]]
        for key in ("early", "late"):
            written = [sample["ids"][at + 1] for at in sample[key]]
            places = sorted(row[key], key=lambda place: place["span"])
            steps = "".join(read(row, place) for place in places)
            # A first token may hold the break before the step.
            assert qwen_tokenizer.decode(written).replace("\n", "").replace(" ", "") == (
                steps.replace(" ", "")
            )
        assert set(sample["late_decision"]) == set(range(len(row["gold"])))


def test_what_a_model_writes_is_kept_where_its_answer_is_the_tasks(task):
    prompt = drawn(task)
    right = ruled_reply(task, prompt)
    assert ruled_row(task, prompt)["prompt"] == question(task, prompt)
    free = "\n anything at all" + right[right.index(PlainTemplate.answer_cue) :]
    row = task_row(task, prompt, free)
    assert row is not None and row["chain"].endswith("anything at all")
    assert row["early"] == row["late"] == row["shortlist"] == []
    for wrong in (right + " A", right[:-1] + "?", right.split("\nanswer")[0], right + right):
        assert task_row(task, prompt, wrong) is None
