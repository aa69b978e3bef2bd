"""How else texts may word a label."""

import re
from collections.abc import Sequence

from workbench.labels.corpus import LabelledCorpus
from workbench.labels.lay_words import in_lay_words
from workbench.labels.space import LabelSpace
from workbench.labels.words import words

_ASIDE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_QUALIFIED = re.compile(
    r"(?i)[,;]?\s+(?:unspecified|nos|nec|not elsewhere classified|not otherwise specified"
    r"|(?:initial|subsequent) encounter\b.*|sequela|so stated|unspecified (?:site|type|side))\s*$"
)
_UNSPECIFIED = re.compile(r"(?i)^(?:unspecified|other(?: specified)?)\s+")
_HEAD = re.compile(r"(?i)\s*(?:[,;:]|\b(?:with|without|due to|not)\b)")
_SMALL = {"a", "an", "and", "as", "at", "by", "for", "from", "in", "into"} | {
    *("of", "on", "or", "the", "to", "with", "without")
}
_LONG = 6
"""Letters of a single word that is a name by itself."""
_FEWEST, _MOST = 3, 6
"""Letters of an abbreviation; shorter ones stand for too many things."""


def wordings(corpus: LabelledCorpus) -> list[tuple[str, ...]]:
    """Text and, where the corpus has a space with them, synonyms and lay words of every label."""
    space = getattr(corpus, "space", None)
    pairs = zip(corpus.label_ids, corpus.label_texts, strict=True)
    if not isinstance(space, LabelSpace):
        return [(text,) for _, text in pairs]
    rows = [(text, *space[label].synonyms) for label, text in pairs]
    return [tuple(dict.fromkeys((*row, *map(in_lay_words, row)))) for row in rows]


def names(texts: Sequence[str], label_id: str = "") -> list[str]:
    """Wordings of a label as texts write them, each once: those given, and shorter forms.

    Without what stands in brackets, without what codes add ("unspecified", "initial encounter"),
    and of "name: text" the name where that is the label's id.
    """
    found = dict.fromkeys(texts)
    for text in texts:
        if label_id and text.startswith(f"{label_id}:"):
            found[label_id] = None
        bare = _ASIDE.sub("", text).strip()
        cut = _UNSPECIFIED.sub("", _stripped(bare))
        for short in (bare, cut):
            if len(words(short)) > 1 or len(short) >= _LONG:
                found[short] = None
    return list(found)


def abbreviations(texts: Sequence[str]) -> set[str]:
    """First letters of a label's wordings up to "with" or a comma: CKD, COPD, T2DM.

    Of three to six words without the small ones; a number stands as it is.
    """
    found = set()
    for text in texts:
        head = _HEAD.split(_ASIDE.sub("", text), maxsplit=1)[0]
        parts = [word for word in words(head) if word not in _SMALL]
        letters = "".join(word if word.isdecimal() else word[0] for word in parts)
        if _FEWEST <= len(parts) <= _MOST and letters.isascii() and letters.isalnum():
            found.add(letters.upper())
    return found


def _stripped(text: str) -> str:
    while (cut := _QUALIFIED.sub("", text)) != text:
        text = cut
    return text
