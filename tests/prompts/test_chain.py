import random

from workbench.prompts.chain import chain_steps
from workbench.prompts.tasks import CodingPrompt, Mention
from workbench.prompts.templates import letter_of


def test_steps_name_the_family_and_then_the_label(space):
    golds, families = ("E11.65", "I10"), (("E11.65", "E11.9"), ("I10", "I11.9"))
    prompt = CodingPrompt(
        "p",
        tuple(Mention(label, "words of a note") for label in golds),
        families,
        ("I11.9", "E11.65", "I10", "E11.9"),
    )
    coarse_1, fine_1, coarse_2, fine_2 = chain_steps(space, prompt, letter_of(prompt))
    assert (coarse_1, coarse_2) == (" 1 in B D", " 2 in A C")
    assert fine_1.startswith(" 1 is Type 2 diabetes mellitus with hyperglycemia ")
    assert fine_2.startswith(" 2 is Essential (primary) hypertension ")
    assert [step.split()[-1] for step in (fine_1, fine_2)] == ["B", "C"]


def test_every_fine_step_ends_in_a_letter_of_its_coarse_step(space, seen_task):
    rng = random.Random(0)
    for _ in range(50):
        prompt = seen_task.draw("", rng)
        steps = chain_steps(space, prompt, letter_of(prompt))
        assert len(steps) == 2 * len(prompt.mentions)
        for coarse, fine in zip(steps[::2], steps[1::2], strict=True):
            letters = coarse.split()[2:]
            assert len(letters) == 5
            assert letters == sorted(letters)
            assert fine.split()[-1] in letters
