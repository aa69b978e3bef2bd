"""Which labels stand above or below one another: whoever says the lower one says the upper one.

An ancestor or a descendant of a right label is no wrong option beside it.
"""

import re
from collections.abc import Callable

from workbench.labels.corpus import LabelledCorpus
from workbench.labels.icd_codes import NAMESPACES
from workbench.labels.space import LabelSpace
from workbench.labels.words import words

_CODE = re.compile(r"[A-Z0-9][0-9][A-Z0-9](\.?[A-Z0-9]{1,4})?")
"""Of a diagnosis, as ICD-9 and ICD-10 have them."""


def kinship(corpus: LabelledCorpus) -> Callable[[int, int], bool]:
    """Whether two labels of a corpus, by position, are ancestor and descendant, or the same.

    - ICD codes: one begins with the other (`E11`, `E11.65`), both with one namespace or none.
    - A taxonomy: one label's id is a node above the other.
    - Labels without a taxonomy: one text holds all words of the other in a row, as "angina" and
      "unstable angina", "X" and "X with Y": a text that says the longer one says both.
    """
    ids, texts = corpus.label_ids, corpus.label_texts
    space = getattr(corpus, "space", None)

    def nodes(label: int) -> tuple[str, ...]:
        return space[ids[label]].ancestors if isinstance(space, LabelSpace) else ()

    def related(one: int, other: int) -> bool:
        if one == other:
            return True
        first, second = _code(ids[one]), _code(ids[other])
        if first and second:
            short, long = sorted((first, second), key=lambda code: len(code[1]))
            return short[0] == long[0] and long[1].startswith(short[1])
        if ids[one] in nodes(other) or ids[other] in nodes(one):
            return True
        if corpus.cluster(one) is not None and corpus.cluster(other) is not None:
            return False
        return _holds(texts[one], texts[other]) or _holds(texts[other], texts[one])

    return related


def _code(label_id: str) -> tuple[str, str] | None:
    """Namespace and code, undotted; None for what is no code."""
    before, _, after = label_id.rpartition(":")
    if before and before not in NAMESPACES.values():
        return None
    return (before, after.replace(".", "")) if before or _CODE.fullmatch(after) else None


def _holds(text: str, part: str) -> bool:
    wanted = " ".join(words(part))
    return bool(wanted) and f" {wanted} " in f" {' '.join(words(text))} "
