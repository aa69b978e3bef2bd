import pytest

from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention, option_letters
from workbench.prompts.templates import PlainTemplate

TEXTS = {"a1": "Cyst of spleen", "a2": "Cyst of liver", "b1": "Fever", "b2": "Dengue fever"}
SPACE = LabelSpace("small", [Label(name, text, (name[0],)) for name, text in TEXTS.items()])
MENTIONS = (Mention("a2", "hepatic cyst"), Mention("b1", "feels hot"))
PROMPT = DrawnPrompt("p", MENTIONS, (("a1", "a2"), ("b1", "b2")), ("b1", "a2", "b2", "a1"))
SHOWN = "note: 1 . hepatic cyst ; 2 . feels hot ;\noptions:\n Fever A\n Cyst of liver B\n"
SHOWN += " Dengue fever C\n Cyst of spleen D"


def test_plain_text_and_its_spans():
    rendered = PlainTemplate().render(SPACE, PROMPT)
    assert rendered.text == f"{SHOWN}\nanswer:"
    words = [rendered.text[start:end] for start, end in (*rendered.mentions, *rendered.options)]
    assert words == [
        *(" hepatic cyst", " feels hot"),
        *(" Fever A", " Cyst of liver B", " Dengue fever C", " Cyst of spleen D"),
    ]


def test_letters_run_out_after_26():
    assert option_letters(3) == ["A", "B", "C"]
    assert len(option_letters(26)) == 26
    with pytest.raises(InputError, match="27 options, but only 26 letters"):
        option_letters(27)
