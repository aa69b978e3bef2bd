import random

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.prompts.tasks import CodingPrompt
from workbench.prompts.templates import ChatTemplate, PlainTemplate, letter_of, option_letters


@pytest.fixture(scope="module")
def prompt(seen_task) -> CodingPrompt:
    return seen_task.draw("p", random.Random(0))


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    bare = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=bare, chat_template=template)


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}<reply>"


@pytest.mark.parametrize("template", [PlainTemplate(), ChatTemplate(chat_tokenizer(CHAT))])
def test_spans_select_the_words_with_the_space_before_them(space, prompt, template):
    rendered = template.render(space, prompt)
    for mention, (start, end) in zip(prompt.mentions, rendered.mentions, strict=True):
        assert rendered.text[start:end] == f" {mention.text}"
    letters = letter_of(prompt)
    for label, (start, end) in zip(prompt.candidates, rendered.options, strict=True):
        words = rendered.text[start:end]
        assert words.startswith(f" {space[label].text} ")
        assert words.endswith(f" {letters[label]}")


def test_plain_text(space, prompt):
    text = PlainTemplate().render(space, prompt).text
    note, options, *descriptions, cue = text.split("\n")
    assert note == "note:" + "".join(
        f" {number} . {mention.text} ;" for number, mention in enumerate(prompt.mentions, start=1)
    )
    assert (options, cue) == ("options:", "answer:")
    assert [line.split()[-1] for line in descriptions] == list("ABCDEFGHIJKLMNOPQRST")


def test_plain_steps_stand_before_the_answer_cue(space, prompt):
    plain, chained = (PlainTemplate().render(space, prompt, s) for s in ((), (" 1 in A", " 1 is")))
    assert chained.text == plain.text.replace("\nanswer:", "\nreason:\n 1 in A\n 1 is\nanswer:")
    assert (chained.mentions, chained.options) == (plain.mentions, plain.options)


def test_chat_text_is_a_users_turn_and_the_begin_of_a_reply(space, prompt):
    text = ChatTemplate(chat_tokenizer(CHAT)).render(space, prompt, [" 1 in A"]).text
    assert text.startswith("<user>Each numbered mention")
    assert text.endswith(" T</user>\n<reply>1 in A\nAnswer:")


def test_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(InputError, match="no chat template; use --template plain"):
        ChatTemplate(chat_tokenizer(None))


def test_chat_template_that_alters_the_text_is_refused(space, prompt):
    template = ChatTemplate(chat_tokenizer("{{ messages[0].content | upper }}"))
    with pytest.raises(InputError, match="alters the user's text"):
        template.render(space, prompt)


def test_letters_run_out_after_26():
    assert option_letters(3) == ["A", "B", "C"]
    assert len(option_letters(26)) == 26
    with pytest.raises(InputError, match="27 options, but only 26 letters"):
        option_letters(27)
