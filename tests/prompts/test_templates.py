import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention, option_letters
from workbench.prompts.templates import ChatTemplate, PlainTemplate

TEXTS = {"a1": "Cyst of spleen", "a2": "Cyst of liver", "b1": "Fever", "b2": "Dengue fever"}
SPACE = LabelSpace("small", [Label(name, text, (name[0],)) for name, text in TEXTS.items()])
MENTIONS = (Mention("a2", "hepatic cyst"), Mention("b1", "feels hot"))
PROMPT = DrawnPrompt("p", MENTIONS, (("a1", "a2"), ("b1", "b2")), ("b1", "a2", "b2", "a1"))
SHOWN = "note: 1 . hepatic cyst ; 2 . feels hot ;\noptions:\n Fever A\n Cyst of liver B\n"
SHOWN += " Dengue fever C\n Cyst of spleen D"
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}<reply>"


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=bare, chat_template=template)


@pytest.mark.parametrize("template", [PlainTemplate(), ChatTemplate(chat_tokenizer(CHAT))])
def test_spans_select_the_words_with_the_space_before_them(template):
    rendered = template.render(SPACE, PROMPT)
    words = [rendered.text[start:end] for start, end in (*rendered.mentions, *rendered.options)]
    assert words == [
        *(" hepatic cyst", " feels hot"),
        *(" Fever A", " Cyst of liver B", " Dengue fever C", " Cyst of spleen D"),
    ]


def test_texts():
    assert PlainTemplate().render(SPACE, PROMPT).text == f"{SHOWN}\nanswer:"
    text = ChatTemplate(chat_tokenizer(CHAT)).render(SPACE, PROMPT).text
    assert text.startswith("<user>Each numbered mention")
    assert text.endswith(f"{SHOWN}</user>\n<reply>Answer:")


def test_refused_chat_templates():
    with pytest.raises(InputError, match="no chat template; use --template plain"):
        ChatTemplate(chat_tokenizer(None))
    template = ChatTemplate(chat_tokenizer("{{ messages[0].content | upper }}"))
    with pytest.raises(InputError, match="alters the user's text"):
        template.render(SPACE, PROMPT)


def test_letters_run_out_after_26():
    assert option_letters(3) == ["A", "B", "C"]
    assert len(option_letters(26)) == 26
    with pytest.raises(InputError, match="27 options, but only 26 letters"):
        option_letters(27)
