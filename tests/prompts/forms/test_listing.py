import pytest

from workbench.prompts.forms.listing import listed

OPTIONS = ("Fever", "Dengue fever", "Cyst of liver", "Cyst of  liver, sequela", "Carcinoma in situ")
NAMES = "ABCDE"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("**B. Dengue fever**", "B"),
        ("(C)", "C"),
        ("dengue  FEVER", "B"),
        ('"Cyst of liver"', "C"),
        ("cyst of liver, sequela", "D"),
        ("Cyst of liver, Fever", "CA"),
        ("1. Dengue fever\n2. Cyst of liver\n3. Fever", "BCA"),
        ("- B: Dengue fever - because of the fever\n- C", "BC"),
        ("A, C and E", "ACE"),
        ("The answer is: B", "B"),
        ("Answer: B. Dengue fever.", "B"),
        ("A fever is told, no cyst.", "A"),
        ("A patient comes with a rash.", ""),
        ("I think it is dengue fever.", "B"),
        ("<think>Fever? C?</think>\nB", "B"),
        ("# Answer\nB. Dengue fever\nB", "B"),
        ("No option fits", ""),
        ("Feverish", ""),
        ("b", "B"),
        ("\\boxed{C}", "C"),
        ("The one that fits best is E.", "E"),
        ("B\n\nIt cannot be a fever alone, as no cyst of liver is.", "B"),
        ("E | D", "ED"),
    ],
)
def test_free_replies(reply, found):
    assert "".join(NAMES[at] for at in listed(reply, OPTIONS, NAMES)) == found


def test_numbers_as_names():
    names = [f"{number:02d}" for number in range(1, 31)]
    options = [f"label {name}" for name in names]
    assert listed("1. 07\n2. label 03\n11", options, names) == [6, 2, 10]


def test_texts_of_other_alphabets():
    options = ("Straße", "İzmir", "Ödem", "C++ (18)")
    reply = "1. straße\n2. izmir\n3. ÖDEM\n4. c++  (18)."
    assert listed(reply, options, "ABCD") == [0, 1, 2, 3]


def test_equal_texts_are_named_in_turn():
    assert listed("x\nx\nx", ("x", "x"), "AB") == [0, 1]
