"""What a task has without saying so, on one that says as little as a task can."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest
from fixtures.shades import SHADES, ShadesTask, shades_tokenizer
from fixtures.tiny_runs import save_reader

from workbench.errors import InputError
from workbench.organism.reasoner import ReasonerConfig
from workbench.prompts import choices
from workbench.prompts.chain import make_chain
from workbench.prompts.choices import TaskKind, check_task, open_task, settled_task, stage_reader
from workbench.prompts.coding import CodingTask
from workbench.prompts.drawn import DrawnPrompt, Mention
from workbench.prompts.events import make_events
from workbench.prompts.laterality import ReasonedLaterality
from workbench.prompts.make import make_prompts
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate

NOWHERE = Path("nowhere")


@pytest.fixture
def registered(monkeypatch) -> TaskKind:
    kind = TaskKind("shades", lambda **_: ShadesTask())
    monkeypatch.setitem(choices.KINDS, "shades", kind)
    return kind


@pytest.fixture(scope="module")
def task() -> ShadesTask:
    return ShadesTask()


@pytest.fixture(scope="module")
def prompts(task) -> list[DrawnPrompt]:
    return [task.draw("p", random.Random(seed)) for seed in range(200)]


def test_steps_name_the_family_and_then_the_label(task):
    mentions = (Mention("navy", "a navy wall"), Mention("tan", "the tan wall"))
    shown = ("umber", "tan", "cobalt", "sepia", "navy", "azure")
    prompt = DrawnPrompt("p", mentions, (SHADES["blue"], SHADES["brown"]), shown)
    steps = task.chain(prompt)
    assert steps == [" 1 in C E F", " 1 is blue navy E", " 2 in A B D", " 2 is brown tan B"]
    assert task.stages(0, steps) == ["coarse", "fine", "after", "after"]
    assert task.stages(1, [*steps, "so it is"]) == ["before", "before", "coarse", "fine", "other"]
    assert task.answer(prompt) == ["E", "B"]


def test_a_written_chain_is_read(task, prompts):
    chain = make_chain(
        shades_tokenizer(), [1], "\n".join(task.chain(prompts[0])), stages=task.stages, event=0
    )
    assert chain.stages[:2] == ("coarse", "fine") and chain.own_step == 1


def test_answers_are_read_and_measured(task, prompts):
    prompt = next(prompt for prompt in prompts if len(prompt.mentions) == 2)
    right = task.answer(prompt)
    assert task.read_answer(prompt, right) == prompt.golds
    assert task.metrics(prompt, prompt.golds) == {"in_order": 1, "decisions": 2, "colour": 1}
    listed = task.read_answer(prompt, [right[0], "Z"])
    assert listed == [prompt.golds[0], "?"]
    assert task.metrics(prompt, listed) == {"in_order": 0, "decisions": 1, "colour": 0.5}
    too_many = task.metrics(prompt, [*prompt.golds, "?"])
    assert (too_many["in_order"], too_many["decisions"]) == (0, 2)


def test_counterfactuals_swap_one_mention(task, prompts):
    rng = random.Random(0)
    for prompt in prompts:
        event = rng.randrange(len(prompt.mentions))
        variants = task.counterfactuals(prompt, event, rng)
        home = prompt.family_of(prompt.golds[event])
        assert variants.clean is prompt and variants.event == event
        for variant in (variants.far, variants.near):
            assert variant.candidates == prompt.candidates
            assert variant.golds[event] not in prompt.golds
            kept = [k for k in range(len(prompt.mentions)) if k != event]
            assert all(variant.mentions[k] == prompt.mentions[k] for k in kept)
        assert variants.near.golds[event] in home
        far = prompt.family_of(variants.far.golds[event])
        assert far != home
        if len(prompt.families) > len(prompt.mentions):  # then nobody mentions far's family
            assert not set(far) & set(prompt.golds)


def test_roles(prompts):
    prompt = next(prompt for prompt in prompts if len(prompt.mentions) == 2)
    roles = {label: prompt.role(0, label) for label in prompt.candidates}
    assert roles[prompt.golds[0]] == "gold" and roles[prompt.golds[1]] == "other"
    for label in set(prompt.candidates) - set(prompt.golds):
        is_near = label in prompt.family_of(prompt.golds[0])
        assert roles[label] == ("near" if is_near else "far")


def test_a_registered_task_gives_prompts(registered, tmp_path):
    tokenizer = shades_tokenizer()
    save_reader(tokenizer, tmp_path)
    prompts = make_prompts(tmp_path / "p.jsonl", model=tmp_path, task="shades", n_prompts=4, seed=3)
    assert prompts == make_events(ShadesTask(), PlainTemplate(), tokenizer, n_prompts=4, seed=3)
    assert prompts.task == "shades" and (tmp_path / "p.jsonl").is_file()


def test_tasks_are_opened_by_name(registered, monkeypatch):
    assert isinstance(open_task("shades", model=NOWHERE, split="seen"), Task)
    with pytest.raises(InputError, match=r"is not one of auto, .*mimic4:FOLDER, shade"):
        check_task("shades:folder")
    monkeypatch.setitem(choices.KINDS, "none", TaskKind("none", lambda **_: object(), True))
    with pytest.raises(InputError, match="has no chains of thought and answers, only prompts"):
        open_task("none:here", model=NOWHERE, split="seen")


def test_a_task_may_have_chains_of_its_own(monkeypatch):
    kind = TaskKind("own", lambda **_: None, stages=lambda event, steps: ["fine"] * len(steps))
    monkeypatch.setitem(choices.KINDS, "own", kind)
    assert stage_reader("own")(0, [" 1 in A"]) == ["fine"]
    for name in ("icd10cm", "xmc:titles", "a file of mine"):
        assert stage_reader(name)(0, [" 1 in A"]) == ["coarse"]


def test_the_task_is_that_which_a_model_was_trained_on(tmp_path, few_labels, tokenizer):
    """Its record names it; a reasoning model is asked in the middle of its chain."""
    config = json.loads(json.dumps(asdict(ReasonerConfig())))
    config["task"] |= {"name": "laterality", "deepest": 0.3}
    (tmp_path / "training.json").write_text(json.dumps({"config": config}))
    assert settled_task("auto", tmp_path) == "laterality-chain"
    assert settled_task("icd10cm", tmp_path) == "icd10cm"
    assert settled_task("auto", tmp_path / "nowhere") == "icd10cm"
    found = open_task("auto", model=tmp_path, split="seen")
    assert isinstance(found, ReasonedLaterality)
    assert found.config.deepest == 0.3
    assert found.name == "laterality-chain"
    assert isinstance(open_task("icd10cm", model=tmp_path, split="seen"), CodingTask)
