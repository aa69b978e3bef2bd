import pytest

from workbench.prompts.replies import read_choice

OPTIONS = {
    "A": "Fever",
    "B": "Cyst of liver",
    "C": "Dengue fever",
    "D": "Cyst of spleen",
    "I": "Influenza",
}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" B. Cyst of liver", "B"),
        ("**D**\n", "D"),
        ("(C) since it says dengue", "C"),
        ("Answer: D", "D"),
        ("The answer is: **C**.", "C"),
        ("Option A is wrong, so the answer is B.", "B"),
        (r"\boxed{D}", "D"),
        ("I think it is option C", "C"),
        ("The right choice is the one that says cyst of  liver.", "B"),
        ("It means dengue fever", "C"),  # which holds the text of another
        ("A cyst of spleen", "D"),
        ("A", "A"),
        ("A patient with I do not know what", None),
        ("Cyst of liver or cyst of spleen", None),
        ("Option A or option B", None),
        ("Pneumonia", None),
        ("BC", None),
        ("", None),
    ],
)
def test_replies_as_models_write_them(reply, letter):
    assert read_choice(reply, OPTIONS) == letter


@pytest.mark.parametrize(("number", "letter"), [(0, "B"), (1, "A"), (2, "D"), (3, None)])
@pytest.mark.parametrize("reply", ["B A D", "B, A, D.", "B\nA\nD", "1"])
def test_the_answer_of_a_number(reply, number, letter):
    assert read_choice(reply, OPTIONS, number) == (None if reply == "1" else letter)
