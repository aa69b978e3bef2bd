"""The tokenizer of a GGUF file.

A file names how text is cut before merges are applied (`tokenizer.ggml.pre`) and leaves the rest to
the reader. What transformers leaves out is put in here, and other names are refused: a text cut
otherwise than the model learned it gives wrong numbers without a word.
"""

from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from workbench.errors import InputError, first_line, shorten
from workbench.models.gguf import INSTEAD, GgufFile, apart

# Every name with its normaliser, whether digits stand alone before GPT-2's rule is applied, and
# whether a whole word of the vocabulary is taken before merges are; the cutting itself is
# transformers'. As in the models' own tokenizer.json.
_QWEN2, _LLAMA3 = (True, False, False), (False, False, True)
_KNOWN = {
    "gpt-2": (False, False, False),
    "smollm": (False, True, False),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
}
_CONTROL, _USER_DEFINED = 3, 4
_PROBE = "Ünïcode  E11.65, don't\n\n 2026 → x=[1]\ttab 漢字 🙂\n"
"""A text that every tokenizer must give back as it was."""


def read_gguf_tokenizer(file: GgufFile) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its special tokens and chat template.

    Raises:
        InputError: the file has none, or one that cannot be built so that it surely cuts text as
            the model learned it.
    """
    tokens = file.stated("tokenizer.ggml.tokens")
    if not tokens:
        raise InputError(f"{file.path} has no tokenizer; {INSTEAD}")
    try:
        with apart(file) as where:
            found = PreTrainedTokenizerFast.from_pretrained(**where, trust_remote_code=False)
        backend: Tokenizer = found.backend_tokenizer
        first = _first_token(file)
        _mend(backend, file)
        # Of the plain class, which is saved and read again as it stands.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            add_bos_token=first is not None,
            add_eos_token=bool(file.stated("tokenizer.ggml.add_eos_token")),
            model_max_length=file.facts().context_length,
            clean_up_tokenization_spaces=False,
            chat_template=found.chat_template,
            **found.special_tokens_map,
        )
    except InputError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(f"{file.path}: tokenizer cannot be built: {first_line(error)}") from error
    _check(tokenizer, file, tokens, first)
    return tokenizer


def _first_token(file: GgufFile) -> int | None:
    """Id of the token that every text begins with, None where there is none."""
    kind, cut = (file.stated(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    add = file.stated("tokenizer.ggml.add_bos_token")
    if add is None:  # as llama.cpp takes it
        add = kind == "llama" or _KNOWN.get(cut) == _LLAMA3
    token = file.stated("tokenizer.ggml.bos_token_id")
    if add and token is None:
        raise InputError(f"{file.path}: every text begins with a token that the file does not name")
    return token if add else None


def _mend(backend: Tokenizer, file: GgufFile) -> None:
    kind, cut = (file.stated(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    if kind == "llama":  # SentencePiece, which has no rule of its own
        return
    if kind != "gpt2" or cut not in _KNOWN:
        raise InputError(
            f"{file.path}: a tokenizer {shorten(kind)} that cuts text by rule {shorten(cut)} is "
            f"not read from GGUF; {INSTEAD}"
        )
    composed, digits_alone, whole_words = _KNOWN[cut]
    if composed:
        backend.normalizer = normalizers.NFC()
    if digits_alone:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if whole_words:
        backend.model.ignore_merges = True


def _check(tokenizer: Any, file: GgufFile, tokens: list[str], first: int | None) -> None:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    wrong = None
    if len(tokenizer) != len(tokens):
        wrong = f"{len(tokenizer)} tokens, the file has {len(tokens)}"
    kinds = file.stated("tokenizer.ggml.token_type") or ()
    added = tokenizer.get_added_vocab()
    for token, (text, kind) in enumerate(zip(tokens, kinds, strict=False)):
        whole = text in added or kind == _USER_DEFINED or (kind == _CONTROL and text.isascii())
        if whole and encode(text) != [token]:
            wrong = wrong or f"token {token} is not taken as one"
    if tokenizer.decode(encode(_PROBE), skip_special_tokens=False) != _PROBE:
        wrong = wrong or "it does not give back a text as it was"
    if [*tokenizer.encode("a"), None][0] != (encode("a")[0] if first is None else first):
        wrong = wrong or "it does not begin a text as the file says"
    spaced = str(tokenizer.convert_ids_to_tokens(encode("a"))[0]).startswith("\u2581")
    if file.stated("tokenizer.ggml.model") == "llama":
        asked = file.stated("tokenizer.ggml.add_space_prefix")
        if spaced != (True if asked is None else asked):
            wrong = wrong or "it does not treat the first space as the file says"
    if wrong:
        raise InputError(f"{file.path}: the tokenizer that transformers makes is wrong: {wrong}")
