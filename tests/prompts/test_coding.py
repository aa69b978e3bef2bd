import random
from dataclasses import replace

import pytest

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.prompts.coding import CodingTask, TaskConfig, split_categories
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.shorthand import ShorthandConfig


def draw_many(task: CodingTask, n: int, seed: int = 0) -> list[DrawnPrompt]:
    rng = random.Random(seed)
    return [task.draw(str(index), rng) for index in range(n)]


@pytest.fixture(scope="module")
def prompts(seen_task) -> list[DrawnPrompt]:
    return draw_many(seen_task, 300)


@pytest.fixture(scope="module")
def varied(space, categories) -> CodingTask:
    config = TaskConfig(n_mentions=(1, 4), n_families=(2, 4), family_size=(2, 5), same_family=0.5)
    return CodingTask(space, categories[0], config)


def test_split_covers_every_category_once(space, categories):
    seen, unseen = categories
    everything = {category(label.id) for label in space}
    assert set(seen).isdisjoint(unseen)
    assert set(seen) | set(unseen) == everything
    assert len(unseen) == round(0.1 * len(everything))


def test_split_depends_on_the_seed_alone(space, categories):
    assert split_categories(space) == categories
    assert split_categories(space, seed=1) != categories


def test_families_are_of_different_categories(prompts):
    for prompt in prompts:
        of_family = [{category(label) for label in family} for family in prompt.families]
        assert all(len(found) == 1 for found in of_family)
        assert len(set.union(*of_family)) == len(prompt.families) == 4


def test_candidates_are_the_families_members_shuffled(prompts):
    for prompt in prompts:
        members = [label for family in prompt.families for label in family]
        assert sorted(members) == sorted(prompt.candidates)
        assert len(set(members)) == 20
    assert any(
        list(prompt.candidates) != [x for family in prompt.families for x in family]
        for prompt in prompts
    )


def test_members_of_a_family_differ_in_words(seen_task, prompts):
    for prompt in prompts:
        for family in prompt.families:
            assert len({frozenset(seen_task.words(label)) for label in family}) == len(family)


def test_every_mentioned_family_keeps_a_near_miss_unmentioned(varied):
    for prompt in draw_many(varied, 500):
        golds = {mention.label for mention in prompt.mentions}
        assert len(golds) == len(prompt.mentions) >= 1
        for family in prompt.families:
            assert not golds.issuperset(family)


def test_sizes_follow_the_ranges(varied):
    prompts = draw_many(varied, 400)
    assert {len(prompt.families) for prompt in prompts} == {2, 3, 4}
    assert {len(family) for prompt in prompts for family in prompt.families} == {2, 3, 4, 5}
    assert {len(prompt.mentions) for prompt in prompts} == {1, 2, 3, 4}


def test_sizes_can_be_drawn_apart(varied):
    drawn = [varied.draw("", random.Random(i), random.Random(7)) for i in range(10)]
    assert len({(len(p.families), len(p.families[0])) for p in drawn}) == 1
    assert len({p.candidates for p in drawn}) == 10


@pytest.mark.parametrize(("probability", "expected"), [(0.0, {False}), (1.0, {True})])
def test_second_mention_of_the_same_family(space, categories, probability, expected):
    config = TaskConfig(n_mentions=(2, 2), same_family=probability)
    prompts = draw_many(CodingTask(space, categories[0], config), 50)
    same = {p.family_of(p.mentions[0].label) == p.family_of(p.mentions[1].label) for p in prompts}
    assert same == expected


def test_held_out_categories_never_occur(prompts, categories):
    held_out = set(categories[1])
    for prompt in prompts:
        occurring = {category(label) for label in prompt.candidates}
        assert held_out.isdisjoint(occurring)
        assert {mention.label for mention in prompt.mentions} <= set(prompt.candidates)


def test_draws_are_determined_by_the_random_state(seen_task):
    assert draw_many(seen_task, 5) == draw_many(seen_task, 5)
    assert draw_many(seen_task, 5) != draw_many(seen_task, 5, seed=1)


def test_inclusion_terms_point_to_their_label_alone(space, categories):
    written_out = ShorthandConfig().scaled(0.0)
    config = TaskConfig(inclusion_term=1.0, shorthand=written_out)
    task = CodingTask(space, categories[0], config)
    from_terms = 0
    for prompt in draw_many(task, 400):
        for mention in prompt.mentions:
            words = set(mention.text.split())
            if words != set(task.words(mention.label)):
                from_terms += 1
                shared = {x: len(words.intersection(task.words(x))) for x in prompt.candidates}
                others = [n for label, n in shared.items() if label != mention.label]
                assert shared[mention.label] > max(others)
    assert from_terms > 50


def test_easier_mentions_and_other_sizes_leave_the_task_as_it_is(varied):
    plain, config = varied.eased(0.0), varied.config
    assert plain.config == replace(config, shorthand=ShorthandConfig(0.0, 0.0, 0.0, 0.0))
    assert varied.eased(1.0) is varied
    assert varied.smallest().config == replace(config, n_families=(2, 2), family_size=(2, 2))
    rng = random.Random(0)
    for n_options in (6, 20):
        drawn = varied.with_options(n_options, rng).draw("", rng)
        assert len(drawn.candidates) == n_options
    assert varied.with_options(11, rng) is varied
    assert varied.config is config and plain.categories == varied.categories


@pytest.mark.parametrize(
    "sizes", [{"n_mentions": (0, 1)}, {"n_families": (1, 4)}, {"family_size": (5, 2)}]
)
def test_bad_sizes_are_refused(sizes):
    (name,) = sizes
    with pytest.raises(InputError, match=f"{name} .* is not a range of numbers from"):
        TaskConfig(**sizes)


def test_too_few_categories_are_refused(space):
    with pytest.raises(InputError, match="only 2 categories have 5 codes, need 4"):
        CodingTask(space, ["E11", "S52"])


def test_labels_with_long_descriptions_are_left_out(space, categories):
    config = TaskConfig(max_description_words=4)
    task = CodingTask(space, categories[0], config)
    for prompt in draw_many(task, 50):
        assert all(len(space[label].text.split()) <= 4 for label in prompt.candidates)
