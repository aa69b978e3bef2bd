import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form
from workbench.prompts.forms.names import option_names

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:.ĊĠ"


@pytest.fixture(scope="module")
def of_digits():
    """Reads up to three digits as one token, and no space with them, as Llama 3 does."""
    signs = [*LETTERS, *map(str, range(10))]
    numbers = [f"{number:0{width}d}" for width in (2, 3) for number in range(10**width)]
    vocab = {piece: at for at, piece in enumerate([*signs, *numbers])}
    merges = [(number[:-1], number[-1]) for number in numbers]
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    digits = pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated")
    space = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([digits, space])
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


@pytest.mark.parametrize(("n", "last"), [(27, "27"), (400, "400")])
def test_numbers_of_one_token_are_preferred_and_their_space_is_of_the_prompt(of_digits, n, last):
    asker = Asker(Form("own", "{document}:{options}"), of_digits, max_tokens=99_999)
    question = asker.ask("a", ["b"] * n)
    assert question.names[-1] == last and {len(name) for name in question.names} == {len(last)}
    assert {len(tokens) for tokens in question.option_tokens} == {1}
    assert question.text.endswith("Answer: ") and question.gap == ""
    for name, tokens in list(zip(question.names, question.option_tokens, strict=True))[::50]:
        assert question.tokens + tokens == tuple(of_digits(question.text + name)["input_ids"])


def test_letters_up_to_26_and_numbers_where_asked(of_digits):
    assert option_names(26, "auto", of_digits, "Answer:", " ").names[-1] == "Z"
    few = option_names(9, "numbers", of_digits, "Answer:", " ")
    assert few.names == tuple("123456789") and few.kind == "number"
    assert option_names(10, "numbers", of_digits, "Answer:", " ").names[0] == "01"


def test_no_options(of_digits):
    with pytest.raises(InputError, match="no options"):
        option_names(0, "auto", of_digits, "Answer:", " ")


def test_names_that_cannot_be_told_apart_are_refused():
    raw = Tokenizer(models.WordLevel({"?": 0, ":": 1}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?")
    with pytest.raises(InputError, match="does not tell the names of options apart"):
        option_names(3, "auto", tokenizer, "Answer:", " ")
