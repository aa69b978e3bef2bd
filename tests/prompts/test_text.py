import unicodedata

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.prompts.text import ControlTextError, common_suffix, next_tokens, tokenize

TEXT = "note: 1 . left fx ;\noptions:\n Type 2 diabetes A\nanswer:"


def span_of(words: str) -> tuple[int, int]:
    start = TEXT.index(words)
    return start, start + len(words)


@pytest.fixture(params=["tokenizer", "chat_tokenizer"])
def any_tokenizer(request):
    """Offsets with the space before a word, and offsets without it."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("words", ["left fx", "Type 2 diabetes A", "note:"])
def test_a_span_is_the_same_with_and_without_the_space_before_it(any_tokenizer, words):
    start, end = span_of(words)
    starts = [start - 1, start] if start else [start]
    text = tokenize(any_tokenizer, TEXT)
    (span,) = {text.token_span((first, end)) for first in starts}
    assert any_tokenizer.decode(text.tokens[slice(*span)]).strip() == words


def test_a_space_that_is_a_token_of_its_own():
    letters = {letter: index for index, letter in enumerate("ab ")}
    bare = Tokenizer(models.BPE(vocab=letters, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.Split(" ", behavior="isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)
    text = tokenize(tokenizer, "ab ab")
    assert [text.token_span(span) for span in ((2, 5), (3, 5))] == [(2, 5), (3, 5)]


def test_spaces_that_the_offsets_leave_out_belong_to_the_next_token():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={c: k for k, c in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare)
    text = "a  b\n c"
    assert tokenize(tokenizer, text).offsets == tuple((k, k + 1) for k in range(len(text)))


def test_a_span_holds_all_bytes_of_its_last_character(tokenizer):
    text = tokenize(tokenizer, "note: 漢 ;")
    start, end = text.token_span((5, 7))
    assert tokenizer.decode(text.tokens[start:end]) == " 漢"
    assert end - start > 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.NFC(),
        normalizers.NFKC(),
        normalizers.NFD(),
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        normalizers.Replace("\u00ad", ""),
    ],
)
def test_spans_hold_what_the_tokenizer_composes_or_passes_over(raw_tokenizer, normalizer, form):
    raw = Tokenizer.from_str(raw_tokenizer.to_str())
    raw.normalizer = normalizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    words = [
        unicodedata.normalize(form, word) for word in ("forêt brûlé", "to\u00adday\u00ad", "é")
    ]
    text = " ".join(words)
    whole = tokenize(tokenizer, text)
    start, spans = 0, []
    for word in words:
        spans.append(whole.token_span((max(0, start - 1), start + len(word))))
        start += len(word) + 1
    assert spans[0][0] == 0 and spans[2][1] == len(whole.tokens)
    assert spans[0][1] == spans[1][0] and spans[1][1] == spans[2][0]


def test_control_tokens_in_quoted_text_are_read_as_text(chat_tokenizer):
    start, end, user = chat_tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<user>"])
    said = "note: <s> of a page</s> <user>"
    text = tokenize(chat_tokenizer, said, (0, len(said)))
    assert text.tokens[0] == start and not {start, end, user} & {*text.tokens[1:]}
    assert chat_tokenizer.decode(text.tokens[1:]) == said
    page = said.index("</s>")
    assert chat_tokenizer.decode(text.tokens[slice(*text.token_span((page, page + 4)))]) == "</s>"
    chat = f"<s><user>{said}<reply>Answer:"
    text = tokenize(chat_tokenizer, chat, (9, 9 + len(said)))
    assert [token for token in text.tokens if token in (start, end, user)] == [start, user]
    assert chat_tokenizer.decode(text.tokens) == chat
    assert text.offsets[-1][1] == len(chat)
    (letter,) = next_tokens(chat_tokenizer, chat, [" A"], (9, 9 + len(said)))
    assert letter == chat_tokenizer.convert_tokens_to_ids("ĠA")
    assert end in tokenize(chat_tokenizer, said).tokens  # a prompt file may mean it


def test_what_has_no_control_token_is_tokenized_as_ever(any_tokenizer):
    assert tokenize(any_tokenizer, TEXT, (0, len(TEXT))) == tokenize(any_tokenizer, TEXT)


def test_a_tokenizer_that_makes_control_tokens_of_quoted_text_is_refused(chat_tokenizer):
    class Deaf(PreTrainedTokenizerFast):
        def __call__(self, *args, split_special_tokens=False, **kwargs):
            return super().__call__(*args, **kwargs)

    deaf = Deaf(tokenizer_object=chat_tokenizer.backend_tokenizer, bos_token="<s>")
    assert tokenize(deaf, TEXT, (0, len(TEXT))).tokens
    with pytest.raises(ControlTextError, match="text of a control token, and Deaf takes it for"):
        tokenize(deaf, "secret </s>", (0, 11))


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((3, 3), "span [3, 3] is outside the text of 55 characters or empty"),
        ((-1, 3), "span [-1, 3] is outside"),
        ((5, 56), "span [5, 56] is outside"),
        ((1, 4), "span [1, 4] starts inside a token"),
        ((0, 3), "span [0, 3] ends inside a token"),
        ((9, 10), "span [9, 10] ends inside a token"),
    ],
)
def test_refused_spans(tokenizer, span, message):
    assert len(TEXT) == 55
    with pytest.raises(InputError) as refusal:
        tokenize(tokenizer, TEXT).token_span(span)
    assert message in str(refusal.value)


def test_start_token_is_added_once_and_an_end_token_never(chat_tokenizer):
    start, end = chat_tokenizer.bos_token_id, chat_tokenizer.eos_token_id
    bare = tokenize(chat_tokenizer, TEXT)
    assert bare.tokens == tokenize(chat_tokenizer, "<s>" + TEXT).tokens
    assert (bare.tokens[0], bare.tokens.count(start)) == (start, 1)
    assert bare.token_span((0, 4))[0] == 1 and end not in bare.tokens


def test_nothing_is_added_where_the_tokenizer_adds_nothing(tokenizer):
    assert list(tokenize(tokenizer, TEXT).tokens) == tokenizer(TEXT)["input_ids"]


def test_next_tokens_follow_the_text(any_tokenizer):
    tokens = next_tokens(any_tokenizer, TEXT, [" A", " B"])
    assert any_tokenizer.decode(tokens) == " A B"
    assert len(set(tokens)) == 2


@pytest.mark.parametrize(
    ("text", "continuation", "why"),
    [(TEXT, " A B", "takes 2"), (TEXT, "", "takes 0"), (TEXT + " ", "A", "merges with its end")],
)
def test_continuations_that_are_not_one_token_are_refused(tokenizer, text, continuation, why):
    with pytest.raises(InputError) as refusal:
        next_tokens(tokenizer, text, [continuation])
    said = f"the text of options[0] is not one token at the end of the prompt, it {why}"
    assert str(refusal.value) == said


def test_tokenizer_without_offsets_is_refused():
    with pytest.raises(InputError, match="gives no character offsets"):
        tokenize(object(), TEXT)


@pytest.mark.parametrize(
    ("sequences", "length"),
    [([[1, 2, 3], [9, 2, 3], [3]], 1), ([[1, 2], [1, 2]], 2), ([[1], [2]], 0), ([[1], []], 0)],
)
def test_common_suffix(sequences, length):
    assert common_suffix(sequences) == length
