"""The ways in which labels of a document are found, by name."""

from dataclasses import dataclass
from typing import Literal

from workbench.errors import InputError

Method = Literal["bm25", "chars", "dense", "examples"]
Field = Literal["text", "long", "name"]
Query = Literal["whole", "passages", "clauses", "title", "name"]


@dataclass(frozen=True)
class Way:
    """How labels are found.

    Attributes:
        method: what makes scores: shared words (BM25), shared character n-grams (TF-IDF), vectors
            of a model, or the labels of training documents that share words (BM25, too).
        field: of a label: its text and other wordings (inclusion terms, synonyms), these and its
            long text, or its id as a name.
        query: the document as one query, a query for each of its passages or for these and their
            clauses, its title, or its id.
        about: for people.
    """

    method: Method
    field: Field
    query: Query
    about: str


WAYS = {
    "bm25": Way("bm25", "text", "whole", "words of the whole document, BM25"),
    "bm25-passages": Way("bm25", "text", "passages", "words of each passage, BM25"),
    "bm25-title": Way("bm25", "text", "title", "words of the title, BM25"),
    "bm25-long": Way("bm25", "long", "whole", "words shared with a label's long text, BM25"),
    "chars": Way("chars", "text", "whole", "characters (3- and 4-grams), TF-IDF"),
    "chars-passages": Way("chars", "text", "passages", "characters of each passage, TF-IDF"),
    "chars-clauses": Way("chars", "text", "clauses", "the same, and of each clause, TF-IDF"),
    "chars-title": Way("chars", "text", "title", "characters of the title, TF-IDF"),
    "names": Way("chars", "name", "name", "characters of the ids, where these are names"),
    "dense": Way("dense", "text", "passages", "vectors of passages (--dense FOLDER)"),
    "examples": Way("examples", "text", "whole", "labels of training documents alike, BM25"),
}
"""Every way by name; where a document has no title, its beginning stands for it."""


def check_ways(names: str) -> list[str]:
    """The ways of a list such as "bm25,chars-passages,chars-passages".

    Raises:
        InputError: none, or no such way.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    unknown = next((name for name in found if name not in WAYS), None)
    if unknown is not None or not found:
        raise InputError(f"way {unknown or names!r} is not one of {', '.join(WAYS)}")
    return found
