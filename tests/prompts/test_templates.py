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
    with pytest.raises(InputError, match="alters the user's text"):
        ChatTemplate(chat_tokenizer("{{ messages[0].content | upper }}"))


TURN = "{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('System role first') }}", "(System role first)"),
        ("{{ messages[1].content }}", "has no element 1"),
        ("{% for %}", "Expected an expression"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("\ud800" + TURN, "surrogates not allowed"),
    ],
)
def test_templates_that_raise_are_refused_in_a_line(template, why):
    with pytest.raises(InputError) as refusal:
        ChatTemplate(chat_tokenizer(template))
    message = str(refusal.value)
    assert message.startswith("the chat template cannot be rendered for a user's turn (")
    assert why in message and message.endswith("use --template plain") and "\n" not in message


def test_a_template_that_raises_later_says_nothing_of_the_prompt():
    raises = "{% if 'fever' in messages[0].content %}{{ raise_exception(messages[0].content) }}"
    template = ChatTemplate(chat_tokenizer(raises + "{% endif %}" + TURN))
    prompt = DrawnPrompt("p", (Mention("b2", "fever"),), PROMPT.families, PROMPT.candidates)
    with pytest.raises(InputError, match=r"^prompt 'p': .* rendered \(TemplateError\)"):
        template.render(SPACE, prompt)


@pytest.mark.parametrize(
    "template",
    [
        "{{ [1, 2, 3] | random }}" + TURN,
        TURN + "{{ messages[0].content | length }}",
        "{{ cycler('a', 'b') | string }}" + TURN,  # where it lies in memory
    ],
)
def test_templates_that_differ_from_text_to_text_are_refused(template):
    with pytest.raises(InputError, match="writes something else around each text"):
        ChatTemplate(chat_tokenizer(template)).render(SPACE, PROMPT)


@pytest.mark.parametrize(
    "start", ["", "\n", "  {% if true %}x{% endif %}", "  \n{%- if true %}x{% endif %}"]
)
def test_templates_read_as_transformers_renders_them(start):
    tokenizer = chat_tokenizer(start + TURN)
    turns = [{"role": "user", "content": "note"}]
    shown = tokenizer.apply_chat_template(turns, tokenize=False)
    assert ChatTemplate(tokenizer)._around("note") == tuple(shown.split("note"))


@pytest.mark.parametrize("form", ["strftime_now('%d %b %Y %S %f')", "date_string"])
def test_the_date_that_a_template_prints_is_always_the_same(form):
    asked = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    template = asked + "{% endif %}{{ " + form + " }}: " + TURN
    texts = {ChatTemplate(chat_tokenizer(template)).render(SPACE, PROMPT).text for _ in range(3)}
    (text,) = texts
    assert text.startswith("26 Jul 2024")


def test_letters_run_out_after_26():
    assert option_letters(3) == ["A", "B", "C"]
    assert len(option_letters(26)) == 26
    with pytest.raises(InputError, match="27 options, but only 26 letters"):
        option_letters(27)
