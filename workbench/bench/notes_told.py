"""Whether counterfactuals of made-up notes still tell the label that they take away.

The notes' own record says where each telling stands, so the answer owes nothing to what found the
sentences that were swapped.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from workbench.bench.notes import TELLINGS
from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.labels.folders import open_corpus
from workbench.labels.words import words
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant


def tellings_left(prompts: PromptSet, folder: str | Path) -> pd.DataFrame:
    """A row a prompt: how many tellings of its gold label each variant's document has.

    A telling is there where its words are, in their order; what stands behind the first option is
    no document. `far_whole` and `near_whole` count those alone that are *whole*: the others, such
    as "secondary osteonecrosis" for the one of a hand, are true of the label's siblings, too, so
    that a sentence about a near option may well hold them.

    Args:
        prompts: of a folder of `write_notes`, with a tokenizer.
        folder: that folder.

    Raises:
        InputError: no such file in the folder, prompts without a tokenizer, or one of another text.
    """
    path = Path(folder) / TELLINGS
    if not path.is_file():
        raise InputError(f"{path}: no such file; `workbench notes` writes it")
    corpus = open_corpus(f"mimic4:{folder}")
    documents = [one for split in corpus.splits for one in corpus.documents(split)]
    told = _told(documents, pd.read_csv(path))
    rows = []
    for event in prompts.events:
        label = next(one.label for one in event.options if one.role == "gold")
        shown = {variant: _spoken(_document(event, variant)) for variant in VARIANTS}
        own = max(
            (tellings for (_, code), tellings in told.items() if code == label),
            key=lambda tellings: _n_left(shown["clean"], tellings),
            default={},
        )
        whole = [telling for telling, is_whole in own.items() if is_whole]
        left = {variant: _n_left(text, own) for variant, text in shown.items()}
        if not left["clean"]:
            raise InputError(f"prompt {event.id}: not of a note in {folder}")
        left |= {f"{variant}_whole": _n_left(shown[variant], whole) for variant in VARIANTS[1:]}
        rows.append({"prompt": event.id, "told": len(own), **left})
    return pd.DataFrame(rows)


def _told(
    documents: Iterable[Document], tellings: pd.DataFrame
) -> dict[tuple[str, str], dict[str, bool]]:
    """Words of the tellings by note and label, and whether each is whole."""
    text = {document.id: document.full_text for document in documents}
    told: dict[tuple[str, str], dict[str, bool]] = {}
    columns = (tellings[name] for name in ("note_id", "label", "start", "end", "whole"))
    for note, label, start, end, whole in zip(*columns, strict=True):
        told.setdefault((note, label), {})[_spoken(text[note][start:end])] = bool(whole)
    return told


def _document(event: DecisionEvent, variant: Variant) -> str:
    """The text of a variant before its first option."""
    tokens = event.variant(variant)
    first = min(one.span[0] for one in event.options)
    end = first + len(tokens) - len(event.clean)
    if event.tokenizer is None:
        raise InputError("the prompts have no tokenizer; read them with the model's")
    return event.tokenizer.decode(list(tokens[:end]), clean_up_tokenization_spaces=False)


def _spoken(text: str) -> str:
    return f" {' '.join(words(text))} "


def _n_left(text: str, tellings: Iterable[str]) -> int:
    return sum(one in text for one in tellings)
