import pytest

from workbench.analysis.chains.case_readings import read_cases
from workbench.analysis.chains.reading import ChainSettings, coverage
from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.prompts.chain import make_chain, question_cases
from workbench.prompts.events import make_events
from workbench.prompts.given_chains import given_cases, holds_chains
from workbench.prompts.laterality import ReasonedLaterality
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.templates import PlainTemplate

CUES = PlainTemplate.cues


def cases_with(task, tokenizer, write, n_prompts=1):
    """Cases of every decision of prompts, with chains that `write` makes of the drawn prompt."""
    drawn = {}

    def every(prompt):
        drawn[prompt.id] = prompt
        return range(len(prompt.mentions))

    prompts = make_events(
        task, PlainTemplate(), tokenizer, n_prompts=n_prompts, seed=0, event=every
    )
    opening = tokenizer(CUES.opening, add_special_tokens=False)["input_ids"]
    found = []
    for case in question_cases(prompts, tokenizer):
        chain = make_chain(
            tokenizer, case.clean.question, write(drawn[case.event.id]), opening=opening,
            stages=task.stages, event=case.event.event,
        )  # fmt: skip
        found.append(type(case)(case.event, case.cue, {"clean": chain}))
    return found, drawn


def correct(task):
    return lambda prompt: "".join(f"\n{step}" for step in task.chain(prompt))


def said(tokenizer, reading, span) -> str:
    return tokenizer.decode(reading.tokens[slice(*span)])


def test_places_of_a_tasks_own_chain_are_exact(seen_task, tokenizer):
    cases, drawn = cases_with(seen_task, tokenizer, correct(seen_task), n_prompts=2)
    readings = read_cases(cases, tokenizer, category)
    assert [reading.id for reading in readings] == ["p0", "p1"]
    for reading in readings:
        prompt = drawn[reading.id]
        assert reading.how == "exact"
        assert tokenizer.decode(reading.tokens[: reading.start]).endswith(CUES.opening)
        assert [reading.labels[one.gold].label for one in reading.decisions] == prompt.golds
        for place, label in zip(reading.labels, prompt.candidates, strict=True):
            [span] = place.document
            assert said(tokenizer, reading, span).strip() == (
                f"{seen_task.space[label].text} {prompt.letters[label]}"
            )
            mentioned = set(prompt.family_of(label)) & set(prompt.golds)
            assert bool(place.listed) == bool(mentioned)
            assert {said(tokenizer, reading, x).strip() for x in place.listed} <= {
                prompt.letters[label]
            }
        spans = [said(tokenizer, reading, span).strip() for span in reading.evidence]
        assert spans == [mention.text for mention in prompt.mentions]
        for number in range(len(prompt.mentions)):
            own = [at for at, asked in enumerate(reading.asked) if asked == number]
            text = tokenizer.decode([reading.tokens[reading.start + at] for at in own])
            assert [line.split()[:2] for line in text.strip().splitlines()] == [
                [str(number + 1), "in"], [str(number + 1), "is"],
            ]  # fmt: skip
            compared = reading.compared(number)
            rest = tokenizer.decode([reading.tokens[reading.start + at] for at in compared])
            assert rest.split()[:2] == [str(number + 1), "is"]
        assert len(reading.relevant) == len({category(gold) for gold in prompt.golds})


def test_early_and_late_do_not_meet(seen_task, tokenizer):
    cases, _ = cases_with(seen_task, tokenizer, correct(seen_task))
    [reading] = read_cases(cases, tokenizer)
    given = ChainSettings(n_early=1000, t_star=0.5)
    early, late = reading.early(given), reading.late(given)
    assert early + late == list(range(reading.n_chain))
    assert reading.early(ChainSettings(n_early=4)) == [0, 1, 2, 3]
    assert reading.query(0) == reading.start - 1
    table = coverage([reading], given).set_index("what")["share"]
    assert table["shortlist"] == table["exact"] == table["far families"] == 1
    assert 0 < table["late tokens, compared"] < 0.5


def test_labels_that_no_decision_is_about_are_one_family_unless_told(seen_task, tokenizer):
    cases, drawn = cases_with(seen_task, tokenizer, correct(seen_task))
    [reading] = read_cases(cases[:1], tokenizer)
    own = set(drawn["p0"].family_of(drawn["p0"].golds[0])) - set(drawn["p0"].golds[1:])
    family = reading.labels[reading.decisions[0].gold].family
    assert {x.label for x in reading.labels if x.family == family} == own
    assert reading.n_families == 2


def test_chains_of_the_reasoner_stand_in_the_prompt(space, tokenizer):
    task = ReasonedLaterality(space, {category(label.id) for label in space})
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=2, seed=1)
    assert holds_chains(prompts, tokenizer, CUES)
    cases = given_cases(prompts, tokenizer, CUES, task.stages)
    for case, event in zip(cases, prompts, strict=True):
        assert (*case.clean.question, *case.clean.tokens, *case.cue) == event.clean
    for case, event in zip(
        given_cases(prompts, tokenizer, CUES, task.stages, VARIANTS), prompts, strict=True
    ):
        for name, chain in case.chains.items():
            assert (*chain.question, *chain.tokens, *case.cue) == event.variant(name)
            assert chain.stages[-1] == "fine" and "coarse" in chain.stages
        assert list(case.chains) == list(VARIANTS)
    for reading, event in zip(read_cases(cases, tokenizer, category), prompts, strict=True):
        own = [at for at, asked in enumerate(reading.asked) if asked == 0]
        lines = tokenizer.decode([reading.tokens[reading.start + at] for at in own]).split("\n")
        number = str(event.event + 1)
        words = [line.split()[:2] for line in lines if line.strip()]
        assert [x[1] for x in words if x[0] == number] in (
            ["in", "side", "not"],
            ["as", "side", "not"],
        )
        assert all(x[0] == number for x in words if x[1] in ("not", "is"))
        gold, near = reading.labels[reading.decisions[0].gold], reading.decisions[0].near
        assert gold.listed and all(reading.labels[at].listed for at in near)


def test_free_chains_are_read_by_the_labels_texts(seen_task, tokenizer):
    def free(prompt):
        texts = [seen_task.space[label].text for label in prompt.family_of(prompt.golds[0])]
        return f" It could be {texts[0].upper()} or {texts[1]}.\n It is {texts[0]}."

    cases, drawn = cases_with(seen_task, tokenizer, free)
    [reading] = read_cases(cases, tokenizer)
    assert reading.how == "matched"
    family = drawn["p0"].family_of(drawn["p0"].golds[0])
    listed = {x.label: len(x.listed) for x in reading.labels if x.listed}
    assert listed == {family[0]: 2, family[1]: 1}
    assert coverage([reading], ChainSettings()).set_index("what").loc["exact", "share"] == 0


def test_bad_cases_are_refused(seen_task, tokenizer):
    with pytest.raises(InputError, match="at least one case"):
        read_cases([], tokenizer)
    prompts = make_events(seen_task, PlainTemplate(), tokenizer, n_prompts=1, seed=0)
    assert not holds_chains(prompts, tokenizer, CUES)
    with pytest.raises(InputError, match="holds no chain"):
        given_cases(prompts, tokenizer, CUES, seen_task.stages)
