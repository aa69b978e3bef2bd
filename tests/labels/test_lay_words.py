import pytest

from workbench.labels.lay_words import LAY, in_lay_words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Cerebral infarction, unspecified", "stroke, unspecified"),
        ("Displaced fracture of left ulna", "break out of line of left elbow bone"),
        ("Dermatitis, unspecified", "skin rash, unspecified"),
        ("Neurodermatitis", "Neurodermatitis"),
        ("Gout", "Gout"),
    ],
)
def test_whole_words_are_replaced_the_longest_first(text, told):
    assert in_lay_words(text) == told


def test_keys_are_small_and_say_something_else():
    assert all(key == key.lower() and key not in word for key, word in LAY.items())
