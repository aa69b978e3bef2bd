from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.chat_form import REASONING, THOUGHTS, ChatForm
from workbench.prompts.drawn import DrawnPrompt, Mention

TEXTS = {"a1": "Cyst of spleen", "a2": "Cyst of liver", "b1": "Fever", "b2": "Dengue fever"}
SPACE = LabelSpace("small", [Label(name, text, (name[0],)) for name, text in TEXTS.items()])
MENTIONS = (Mention("a2", "hepatic cyst"), Mention("b1", "feels hot"))
PROMPT = DrawnPrompt("p", MENTIONS, (("a1", "a2"), ("b1", "b2")), ("b1", "a2", "b2", "a1"))
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}<reply>"
OPTIONS = "A. Fever\nB. Cyst of liver\nC. Dengue fever\nD. Cyst of spleen"
SWITCH = CHAT + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
"""Thinks unless told not to, as Qwen3 does."""
ALWAYS = CHAT + "<think>\n"
"""Always thinks, as distilled models of DeepSeek-R1 do."""


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=bare, chat_template=template)


def test_one_mention_is_asked_about():
    template = ChatTemplate(chat_tokenizer(CHAT))
    rendered = template.render(SPACE, replace(PROMPT, asked=1))
    assert rendered.text == (
        "<user>Note: 1. hepatic cyst ; 2. >> feels hot <<\n\n"
        "Which option does the part of the note between >> and << stand for?\n"
        f"{OPTIONS}\n\nAnswer with the letter only.</user>\n<reply>"
    )
    words = [rendered.text[start:end] for start, end in (*rendered.mentions, *rendered.options)]
    assert words == [" hepatic cyst", " feels hot", *OPTIONS.split("\n")]
    assert (rendered.one, rendered.gap, template.cues) == (True, "", None)


def test_a_single_mention_is_shown_without_number_and_marks():
    template = ChatTemplate(chat_tokenizer(CHAT), "chat-single")
    rendered = template.render(SPACE, replace(PROMPT, asked=1))
    assert rendered.text == (
        "<user>Note: feels hot\n\nWhich option does the note stand for?\n"
        f"{OPTIONS}\n\nAnswer with the letter only.</user>\n<reply>"
    )
    assert [rendered.text[start:end] for start, end in rendered.mentions] == ["", " feels hot"]
    assert rendered.one


def test_all_mentions_are_asked_about_in_order():
    rendered = ChatTemplate(chat_tokenizer(CHAT), "chat-list").render(
        SPACE, replace(PROMPT, asked=1)
    )
    assert rendered.text == (
        "<user>Note: 1. hepatic cyst ; 2. feels hot\n\n"
        f"Which option does each numbered part of the note stand for?\n{OPTIONS}\n\n"
        "Answer with the letters only, in order of the parts, separated by spaces.</user>\n<reply>"
    )
    assert not rendered.one


@pytest.mark.parametrize("name", ["chat", "think"])
@pytest.mark.parametrize("source", [SWITCH, ALWAYS])
def test_a_direct_question_to_a_model_that_thinks_holds_an_empty_thought(source, name):
    template = ChatTemplate(chat_tokenizer(source), name)
    text = template.render(SPACE, replace(PROMPT, asked=0)).text
    assert text.endswith("letter only.</user>\n<reply><think>\n\n</think>\n\n")
    assert text.count("<think>") == 1 and template.cues is THOUGHTS


def test_others_are_asked_to_reason_first():
    template = ChatTemplate(chat_tokenizer(CHAT), "think")
    text = template.render(SPACE, replace(PROMPT, asked=0)).text
    assert text.endswith("the letter only.</user>\n<reply># Reasoning\n\n# Answer\n")
    assert template.cues is REASONING


def test_thinking_is_switched_on_for_think_alone():
    said = "{% if enable_thinking %}/think{% else %}/no_think{% endif %}" + SWITCH
    for name, how in (("chat", "/no_think<"), ("think", "/think<")):
        template = ChatTemplate(chat_tokenizer(said), name)
        assert template.render(SPACE, replace(PROMPT, asked=0)).text.startswith(how)


def test_replies_in_channels_are_refused():
    with pytest.raises(InputError, match="into channels"):
        ChatTemplate(chat_tokenizer(CHAT + "<|channel|>analysis"))


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
    assert ChatForm(tokenizer).around("note") == tuple(shown.split("note"))


@pytest.mark.parametrize("form", ["strftime_now('%d %b %Y %S %f')", "date_string"])
def test_the_date_that_a_template_prints_is_always_the_same(form):
    asked = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    template = asked + "{% endif %}{{ " + form + " }}: " + TURN
    texts = {ChatTemplate(chat_tokenizer(template)).render(SPACE, PROMPT).text for _ in range(3)}
    (text,) = texts
    assert text.startswith("26 Jul 2024")
