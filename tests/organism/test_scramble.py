import random

from workbench.organism.scramble import lexicon, scramble
from workbench.prompts.shorthand import SET_ABBREVIATIONS, content_words


def test_share_zero_keeps_every_description(seen_task):
    prompt = seen_task.draw("p", random.Random(0))
    invented, after = scramble(seen_task, prompt, lexicon(seen_task), random.Random(1), 0.0)
    assert after.candidates == prompt.candidates
    for label in prompt.candidates:
        assert invented.space[label].text == seen_task.space[label].text


def test_words_change_the_same_way_throughout_a_family(seen_task):
    words = lexicon(seen_task)
    for seed in range(20):
        prompt = seen_task.draw("p", random.Random(seed))
        invented, _ = scramble(seen_task, prompt, words, random.Random(seed), 1.0)
        for family in prompt.families:
            swapped: dict[str, str] = {}
            for label in family:
                old = seen_task.space[label].text.lower().split()
                new = invented.space[label].text.lower().split()
                assert len(old) == len(new)
                for before, after in zip(old, new, strict=True):
                    assert swapped.setdefault(before, after) == after


def test_words_of_set_shorthand_stay_and_others_change(seen_task):
    prompt = seen_task.draw("p", random.Random(3))
    invented, _ = scramble(seen_task, prompt, lexicon(seen_task), random.Random(3), 1.0)
    changed = 0
    for label in prompt.candidates:
        old = content_words(seen_task.space[label].text)
        new = set(content_words(invented.space[label].text))
        assert {word for word in old if word in SET_ABBREVIATIONS} <= new
        changed += sum(word not in new for word in old)
    assert changed > len(prompt.candidates)


def test_mentions_are_worded_anew_from_the_invented_descriptions(seen_task):
    task = seen_task.eased(0.0)
    for seed in range(10):
        prompt = task.draw("p", random.Random(seed))
        invented, after = scramble(task, prompt, lexicon(task), random.Random(seed), 1.0)
        assert [m.label for m in after.mentions] == [m.label for m in prompt.mentions]
        for mention in after.mentions:
            assert mention.text.split() == content_words(invented.space[mention.label].text)


def test_two_words_of_a_family_never_become_one(seen_task):
    few = lexicon(seen_task)[::60]
    for seed in range(20):
        prompt = seen_task.draw("p", random.Random(seed))
        invented, _ = scramble(seen_task, prompt, few, random.Random(seed), 1.0)
        for family in prompt.families:
            swapped = {}
            for label in family:
                old, new = (space[label].text for space in (seen_task.space, invented.space))
                swapped |= dict(zip(old.lower().split(), new.lower().split(), strict=True))
            assert len(set(swapped.values())) == len(swapped)
