from copy import copy
from dataclasses import replace
from itertools import pairwise

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form

FORM = Form("own", "Read:\n{document}\nWhich?\n{options}", reply="The {kind}.", reason="Think.")
DOCUMENT = "  Complaints:\n\t- fever, since Monday\n\t- a cough\n\nHe smokes. He\nis 40."
OPTIONS = ("Fever", "Cough", "Fracture of leg")


def words(question, spans):
    return [question.text[start:end] for start, end in spans]


@pytest.mark.parametrize("way", ["plain", "chat"])
def test_document_and_options_stand_as_they_are(way, tokenizer, chat_tokenizer):
    asker = Asker(FORM, tokenizer if way == "plain" else chat_tokenizer, way=way, max_tokens=999)
    question = asker.ask(DOCUMENT, OPTIONS)
    turn = f"Read:\n{DOCUMENT}\nWhich?\nA. Fever\nB. Cough\nC. Fracture of leg"
    plain = way == "plain"
    assert question.text == (
        f"{turn}\n\nAnswer:" if plain else f"<s><user>{turn}\n\nThe letter.<reply>"
    )
    assert words(question, [question.document]) == [DOCUMENT]
    assert words(question, question.options) == ["A. Fever", "B. Cough", "C. Fracture of leg"]
    assert question.shown == ((0, len(DOCUMENT)),)
    assert question.names == ("A", "B", "C")
    assert question.gap == (" " if plain else "")


def all_options(n):
    return [f"label {number}" for number in range(n)]


@pytest.mark.parametrize("n", [1, 9, 26, 27, 99, 100, 400])
@pytest.mark.parametrize("way", ["plain", "chat"])
def test_tokens_of_names_are_those_that_follow(n, way, tokenizer, chat_tokenizer):
    used = tokenizer if way == "plain" else chat_tokenizer
    question = Asker(FORM, used, way=way, max_tokens=99_999).ask(DOCUMENT, all_options(n))
    start = [used.bos_token_id] if used.bos_token_id is not None and way == "plain" else []
    for at in range(0, n, 1 + n // 8):
        name, tokens = question.names[at], question.option_tokens[at]
        text = question.text + question.gap + name
        whole = used(text, add_special_tokens=False)["input_ids"]
        assert (*start, *whole) == question.tokens + tokens
    ordered = sorted(question.option_tokens)
    assert not any(b[: len(a)] == a for a, b in pairwise(ordered))
    assert len({len(name) for name in question.names}) == 1


def test_a_document_that_is_too_long_is_shown_by_passages(tokenizer):
    document = "\n".join(f"  - item {number} of the list." for number in range(40))
    whole = Asker(FORM, tokenizer, max_tokens=9999).ask(document, OPTIONS)
    asker = Asker(FORM, tokenizer, max_tokens=len(whole.tokens) // 2)
    question = asker.ask(document, OPTIONS)
    ((start, end),) = question.shown
    assert start == 0 and document[end] == "\n"
    assert words(question, [question.document]) == [document[:end] + "\n[…]"]
    assert len(whole.tokens) // 2 - 30 < len(question.tokens) < len(whole.tokens) // 2

    told = document.index("item 33")
    kept = asker.ask(document, OPTIONS, keep=[(told, told + 7)])
    first, second = kept.shown
    assert document[slice(*second)] == "  - item 33 of the list."
    shown = f"{document[slice(*first)]}\n[…]\n  - item 33 of the list.\n[…]"
    assert words(kept, [kept.document]) == [shown]


def test_many_are_asked_as_one_by_one(tokenizer):
    asker = Asker(FORM, tokenizer, max_tokens=150)
    documents = ["Short.", DOCUMENT * 9, ""]
    many = asker.ask_many(documents, [OPTIONS, all_options(5), OPTIONS])
    assert many == [
        asker.ask(text, options)
        for text, options in zip(documents, (OPTIONS, all_options(5), OPTIONS), strict=True)
    ]
    assert len(many[1].tokens) < 150 and many[2].shown == ()


def test_options_that_do_not_fit_are_refused(tokenizer):
    with pytest.raises(InputError, match=r"99 options .* leave no room .* 200 tokens are too few"):
        Asker(FORM, tokenizer, max_tokens=200).ask(DOCUMENT, all_options(99))
    with pytest.raises(InputError, match=r"^one option .* 60 tokens, 55 of them for the chain"):
        Asker(FORM, tokenizer, max_tokens=60).ask(DOCUMENT, all_options(1), room=55)


def test_control_tokens_in_texts_are_text_and_in_a_form_are_refused(chat_tokenizer):
    asker = Asker(FORM, chat_tokenizer, max_tokens=999)
    question = asker.ask("a <reply> b", ["x </s>", "y"])
    controls = [chat_tokenizer.convert_tokens_to_ids(text) for text in ("<reply>", "</s>")]
    assert [question.tokens.count(token) for token in controls] == [1, 0]
    with pytest.raises(InputError, match="turn holds a control token"):
        Asker(Form("own", "<user> {document} {options}"), chat_tokenizer, max_tokens=9)


def test_a_chain_stands_before_the_decision(chat_tokenizer):
    asker = Asker(FORM, chat_tokenizer, way="think", max_tokens=999)
    question = asker.ask(DOCUMENT, OPTIONS)
    assert "Think.\nWrite your reasoning under" in question.text
    assert question.text.endswith("<reply># Reasoning\n\n# Answer\n")
    after = asker.reasoned(question, " A cough.\n</s> more")
    assert after.text.endswith("<reply># Reasoning\nA cough.\n\n# Answer\n")
    assert asker.reasoned(question, "A cough.\n\n## Answer\nB").text == after.text
    assert after.option_tokens == question.option_tokens
    opened = asker.opened(question)
    assert after.tokens[: len(opened)] == opened
    assert chat_tokenizer.decode(opened).endswith("# Reasoning\n")


def with_template(tokenizer, template):
    other = copy(tokenizer)
    other.chat_template = template
    return other


def test_thoughts_stand_where_a_model_has_them(chat_tokenizer):
    thinking = with_template(chat_tokenizer, "<user>{{ messages[0].content }}<reply><think>\n")
    asker = Asker(FORM, thinking, way="think", max_tokens=999)
    question = asker.ask(DOCUMENT, OPTIONS)
    assert question.text.endswith("Fracture of leg\n\nThink.<reply><think>\n\n</think>\n\n")
    assert asker.reasoned(question, "So it is.</think>").text.endswith(
        "<think>\nSo it is.\n\n</think>\n\n"
    )


def test_a_system_turn_is_the_forms_where_the_model_takes_one(chat_tokenizer):
    form = replace(FORM, system="Be brief.")
    text = Asker(form, chat_tokenizer, max_tokens=999).ask(DOCUMENT, OPTIONS).text
    assert text.startswith("<s><user>Be brief.<user>Read:")
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(InputError, match="leave the system's turn out, or use --way plain"):
        Asker(form, with_template(chat_tokenizer, refuses), max_tokens=999)


def test_a_chat_form_that_depends_on_the_turn_is_refused(chat_tokenizer):
    counts = "<user>{{ messages[0].content }}{{ messages[0].content | length }}"
    with pytest.raises(InputError, match="something else around each text"):
        Asker(FORM, with_template(chat_tokenizer, counts), max_tokens=999)


def test_there_is_no_chain_in_plain_text(tokenizer):
    asker = Asker(FORM, tokenizer, max_tokens=999)
    with pytest.raises(InputError, match="no place for a chain in the way 'plain'; use think"):
        asker.opened(asker.ask(DOCUMENT, OPTIONS))


@pytest.mark.parametrize("n", [3, 30])
def test_names_behind_a_tokenizer_whose_words_begin_with_a_mark(n):
    words = [f"▁{sign}" for sign in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"] + ["▁", "▁:"]
    signs = sorted({*"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:,?\n\t"})
    pieces = {each: at for at, each in enumerate(["<unk>", *words, *signs])}
    merges = [("▁", each[1:]) for each in words if len(each) == 2]
    raw = Tokenizer(models.BPE(vocab=pieces, merges=merges, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    question = Asker(FORM, tokenizer, max_tokens=9999).ask(DOCUMENT, all_options(n))
    for name, tokens in zip(question.names, question.option_tokens, strict=True):
        whole = tokenizer(question.text + question.gap + name)["input_ids"]
        assert tuple(whole) == question.tokens + tokens


def test_letters_alone_go_as_far_as_pairs_do(tokenizer):
    asker = Asker(replace(FORM, names="letters"), tokenizer, max_tokens=99_999)
    question = asker.ask(DOCUMENT, all_options(27))
    assert all(len(name) == 2 and name.isalpha() for name in question.names)
    with pytest.raises(InputError, match="677 options are too many for letters"):
        asker.ask(DOCUMENT, all_options(677))


def test_a_label_of_several_lines_is_one_option(tokenizer):
    question = Asker(FORM, tokenizer, max_tokens=999).ask(DOCUMENT, ["a\n  b", "c   d"])
    assert words(question, question.options) == ["A. a b", "B. c   d"]


def test_a_long_word_is_cut_where_there_is_no_space(tokenizer):
    asker = Asker(FORM, tokenizer, max_tokens=900)
    question = asker.ask("x1" * 3000, OPTIONS)
    ((start, end),) = question.shown
    assert start == 0 and 0 < end < 6000 and len(question.tokens) > 400


@pytest.mark.parametrize("span", [(0, 0), (5, 999), (-1, 4)])
def test_what_is_to_be_kept_must_be_there(tokenizer, span):
    with pytest.raises(InputError, match="outside of it, or empty"):
        Asker(FORM, tokenizer, max_tokens=999).ask(DOCUMENT, OPTIONS, keep=[span])


def test_a_question_hides_its_text(tokenizer):
    assert "fever" not in repr(Asker(FORM, tokenizer, max_tokens=999).ask(DOCUMENT, OPTIONS))


def test_doubled_braces_are_braces_in_the_question(tokenizer):
    form = Form("own", "Say {{a}} of {document} or {{b}}:\n{options}\nas {{c}}", answer='{{"is":')
    text = Asker(form, tokenizer, max_tokens=999).ask("this", ["Fever"]).text
    assert text == 'Say {a} of this or {b}:\nA. Fever\nas {c}\n\n{"is":'
