import pytest

from workbench.labels.sides import mirror_pairs, opposite, side_of, without_side
from workbench.labels.space import Label


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Fracture of left femur", "left"),
        ("Right tibia, closed", "right"),
        ("Cleft palate", None),
        ("Left ear and right ear", None),
        ("Bilateral cataract", None),
    ],
)
def test_a_side_is_a_word_named_once(text, side):
    assert side_of(text) == side


def test_text_without_its_side_reads_on():
    assert without_side("Burn of right hand, left") == "Burn of hand,"
    assert without_side("Stress fracture, left foot") == "Stress fracture, foot"
    assert opposite("left") == "right"
    assert opposite("right") == "left"


def test_pairs_are_labels_that_differ_in_the_side_alone():
    texts = ["Left hip pain", "Pain of left hip", "Pain of right hip", "Right hip pain", "Left ear"]
    labels = [Label(str(number), text, ("N",)) for number, text in enumerate(texts)]
    pairs = [(left.id, right.id) for left, right in mirror_pairs(labels)]
    assert pairs == [("0", "3"), ("1", "2")]
