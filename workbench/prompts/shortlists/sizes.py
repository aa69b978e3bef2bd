"""How large prompts of documents are, and how much is read and searched for them."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from workbench.errors import InputError
from workbench.files import settings

FEWEST_OPTIONS, MOST_LETTERS, MOST_OPTIONS = 4, 26, 200
"""Gold, near and far, and one more; a letter each; a name of one token each."""
CONTEXT = 4096
"""Tokens of a prompt at most, unless more are asked for: what patching keeps grows with them."""


@settings
class ShortlistConfig:
    """Size of the prompts and of the search."""

    n_candidates: Annotated[int, Field(ge=3, le=MOST_OPTIONS)] = 20
    """Options of a prompt."""
    n_near: Annotated[int, Field(ge=1)] = 4
    """Near options at most."""
    n_mentions: Annotated[int, Field(ge=1)] = 3
    """Gold labels that a prompt offers at most, the decided one included."""
    n_retrieved: Annotated[int, Field(ge=1)] = 1000
    """Labels retrieved for a document, among which a gold label must be."""
    n_neighbours: Annotated[int, Field(ge=1)] = 20
    """Nearest labels looked up where there is no taxonomy."""
    min_overlap: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of a label's TF-IDF weight that a sentence holds which tells it in other words."""
    n_read: Annotated[int, Field(ge=1)] = 2000
    """Documents read of each split, from its start."""
    max_tokens: Annotated[int, Field(ge=1)] = CONTEXT
    """A longer prompt loses passages that do not tell the decided label."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """Labels that a piece of their texts must occur in to make them near."""
    as_given: bool = False
    """Whether the corpus alone says what is right and near: every gold label may be offered,
    retrieved or not, only its cluster is near to it, options are of the families of their clusters,
    prompts have their documents' ids, and come in their order."""

    def __post_init__(self) -> None:
        if self.n_near + self.n_mentions >= self.n_candidates:
            raise InputError(
                f"n_near {self.n_near} and n_mentions {self.n_mentions} leave no far option among "
                f"{self.n_candidates} candidates"
            )


DEFAULT_SIZES = ShortlistConfig()


def sizes_within(context: int | None) -> ShortlistConfig:
    """Default sizes, with prompts that are not longer than a model's context, where it has one."""
    most = DEFAULT_SIZES.max_tokens
    return replace(DEFAULT_SIZES, max_tokens=min(context or most, most))
