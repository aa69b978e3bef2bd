import re
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.coding import CodingTask, TaskConfig
from workbench.prompts.drawn import Counterfactuals
from workbench.prompts.events import make_events
from workbench.prompts.prompt import VARIANTS, DecisionEvent
from workbench.prompts.templates import PlainTemplate


@pytest.fixture(scope="module")
def task(space, categories) -> CodingTask:
    """Small prompts, so that the tests are quick; two mentions may be of one family."""
    config = TaskConfig(n_mentions=(1, 3), n_families=(3, 3), family_size=(3, 3), same_family=0.3)
    return CodingTask(space, categories[0], config)


@pytest.fixture(scope="module")
def prompts(task, setting):
    return make_events(task, *setting, n_prompts=30, seed=0, event="all")


def mentions_in(text: str) -> list[str]:
    """The mentions of a rendered note, by their numbers."""
    note = re.split(r"[Nn]ote:", text)[1]
    note = re.split(r"(?: ;)?\n", note)[0]
    return [re.split(r"\d ?\. ", part)[1] for part in note.split(" ;")]


def words(event: DecisionEvent, span, tokenizer) -> str:
    return tokenizer.decode(event.clean[slice(*span)])


def test_evidence_is_the_mention_and_the_counterfactuals_replace_it_alone(prompts, setting):
    _, tokenizer = setting
    for event in prompts:
        notes = {name: mentions_in(tokenizer.decode(event.variant(name))) for name in VARIANTS}
        assert words(event, event.evidence, tokenizer) == " " + notes["clean"][event.event]
        for name in ("far", "near"):
            pairs = zip(notes["clean"], notes[name], strict=True)
            differing = [number for number, (one, other) in enumerate(pairs) if one != other]
            assert differing == [event.event]


def test_options_name_their_family(prompts):
    for event in prompts:
        names = [option.family for option in event.options]
        assert sorted(names.count(name) for name in set(names)) == [3, 3, 3]
        home = {option.family for option in event.options if option.role in ("gold", "near")}
        assert len(home) == 1


def test_options_have_their_descriptions_and_letters(prompts, setting, space):
    template, tokenizer = setting
    shown = " {text} {letter}" if template.name == "plain" else "{letter}. {text}"
    for event in prompts:
        for letter, option in zip("ABCDEFGHI", event.options, strict=True):
            described = words(event, option.span, tokenizer)
            assert described == shown.format(text=space[option.label].text, letter=letter)
            first = template.name != "plain" and not event.event
            assert tokenizer.decode([option.token]) == f"{'' if first else ' '}{letter}"


def test_prompts_end_in_the_cue_and_the_earlier_answers(prompts, setting):
    template, tokenizer = setting
    cue = "answer:" if template.name == "plain" else "<reply>"
    gold_letters: dict[str, str] = {}
    for event in prompts:  # in order of the mentions
        for name in VARIANTS:
            text = tokenizer.decode(event.variant(name))
            assert text.rpartition(cue)[2] == gold_letters.get(event.id, "")
        (gold,) = event.with_role("gold")
        letter = tokenizer.decode([event.options[gold].token])
        gold_letters[event.id] = gold_letters.get(event.id, "") + letter
    longest = " A B C" if template.name == "plain" else "A B C"
    assert max(map(len, gold_letters.values())) == len(longest)


def test_one_mention_at_a_time_has_no_earlier_answers(task, chat_tokenizer):
    prompts = make_events(
        task, ChatTemplate(chat_tokenizer), chat_tokenizer, n_prompts=6, seed=0, event="all"
    )
    assert {event.event for event in prompts} == {0, 1, 2}
    for event in prompts:
        text = chat_tokenizer.decode(event.clean)
        assert text.endswith("letter only.<reply>")
        assert f">>{words(event, event.evidence, chat_tokenizer)} <<" in text
        letters = [chat_tokenizer.decode([option.token]) for option in event.options]
        assert letters == list("ABCDEFGHI")


def test_roles_follow_mentions_and_families(task, setting):
    prompts = make_events(task, *setting, n_prompts=30, seed=0, event="all")
    golds = {name: set() for name in prompts.prompt_ids}
    for event in prompts:
        golds[event.id].update(event.options[k].label for k in event.with_role("gold"))
    for event in prompts:
        by_role = {
            role: {event.options[k].label for k in event.with_role(role)}
            for role in ("gold", "near", "far", "other")
        }
        (gold,) = by_role["gold"]
        assert by_role["other"] == golds[event.id] - {gold}
        assert all(label[:3] == gold[:3] for label in by_role["near"])
        assert all(label[:3] != gold[:3] for label in by_role["far"])
        assert len(by_role["near"]) == 2 - sum(x[:3] == gold[:3] for x in by_role["other"])


def test_suffix_starts_after_the_mention_and_holds_every_option(prompts, setting):
    _, tokenizer = setting
    for event in prompts:
        start = len(event.clean) - event.aligned_suffix
        assert event.evidence[1] <= start <= min(option.span[0] for option in event.options)
        assert tokenizer.decode(event.clean[start:]).startswith((" ;", "\n"))


def test_mentions_that_end_alike_are_not_in_the_suffix(task, tokenizer, monkeypatch):
    """`left` ends the three mentions; it is still part of what was swapped."""
    original = CodingTask.mention

    def alike(self, prompt, label, rng):
        mention = original(self, prompt, label, rng)
        return replace(mention, text=f"{mention.text} left")

    monkeypatch.setattr(CodingTask, "mention", alike)
    for event in make_events(task, PlainTemplate(), tokenizer, n_prompts=5, seed=0):
        start = len(event.clean) - event.aligned_suffix
        assert words(event, event.evidence, tokenizer).endswith(" left")
        assert start == event.evidence[1]


def test_a_prompt_does_not_depend_on_how_many_are_drawn(task, tokenizer):
    few, many = (make_events(task, PlainTemplate(), tokenizer, n_prompts=n, seed=1) for n in (2, 5))
    assert list(many)[:2] == list(few)
    assert many.prompt_ids == ["p0", "p1", "p2", "p3", "p4"]
    other = make_events(task, PlainTemplate(), tokenizer, n_prompts=2, seed=2)
    assert other.sha256 != few.sha256


def test_one_event_a_prompt_by_default_at_random_mentions(task, tokenizer):
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=30, seed=0)
    assert prompts.prompt_ids == [event.id for event in prompts] == [f"p{k}" for k in range(30)]
    assert {event.event for event in prompts} == {0, 1, 2}
    assert prompts.task == "icd10cm"


def test_all_events_of_a_prompt(prompts):
    for name in prompts.prompt_ids:
        numbers = [event.event for event in prompts.subset([name])]
        assert numbers == list(range(len(numbers)))
    assert {len(prompts.subset([name])) for name in prompts.prompt_ids} == {1, 2, 3}


def test_a_chosen_event(task, tokenizer):
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=8, seed=0, event=2)
    assert [event.event for event in prompts] == [2] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_prompts": 0}, "n_prompts is 0, must be at least 1"),
        ({"event": 3}, "event is 3, must be random, all or a mention, 0 to 2"),
        ({"event": -1}, "event is -1"),
    ],
)
def test_refused_arguments(task, tokenizer, arguments, message):
    with pytest.raises(InputError, match=message):
        make_events(task, PlainTemplate(), tokenizer, **{"n_prompts": 1, "seed": 0, **arguments})


def test_letters_that_are_not_one_token_are_refused(task):
    """A tokenizer of single bytes: the space before a letter is a token of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={c: k for k, c in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)
    with pytest.raises(
        InputError, match=r"options\[0\] is not one token at the end of the prompt, it takes 2"
    ):
        make_events(task, PlainTemplate(), tokenizer, n_prompts=1, seed=0)


def test_counterfactuals_that_change_nothing_are_drawn_again_and_then_refused(
    task, tokenizer, monkeypatch
):
    def unchanged(self, prompt, event, rng):
        return Counterfactuals(event, prompt, prompt, prompt)

    def unchanged_at_first(self, prompt, event, rng):
        drawn.append(prompt)
        draw = original if len(drawn) > 3 else unchanged
        return draw(self, prompt, event, rng)

    original, drawn = CodingTask.counterfactuals, []
    monkeypatch.setattr(CodingTask, "counterfactuals", unchanged_at_first)
    (event,) = make_events(task, PlainTemplate(), tokenizer, n_prompts=1, seed=0)
    assert len(drawn) == 4
    assert event.clean not in (event.far, event.near)

    monkeypatch.setattr(CodingTask, "counterfactuals", unchanged)
    with pytest.raises(InputError, match="no usable prompt in 100 draws"):
        make_events(task, PlainTemplate(), tokenizer, n_prompts=1, seed=0)
