"""The training documents of a task: which an adapter learns from, and which are held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import InputError
from workbench.labels.corpus import Document, LabelledCorpus, check_split
from workbench.predicting.adapting.config import AdaptConfig
from workbench.predicting.adapting.examples import (
    Example,
    candidates_of,
    held_out_ids,
    make_examples,
)
from workbench.predicting.reranking import kept
from workbench.predicting.shortlists import given_shortlist
from workbench.progress import Reporter
from workbench.prompts.forms.asking import Asker

SPLIT = "train"
MOST_HELD_OUT = 10
"""One document in so many is held out at most."""


@dataclass(frozen=True)
class Gathered:
    """Examples to learn from, those held out, and what became of the documents."""

    learned: list[Example]
    held: list[Example]
    counts: dict[str, Any]


def gather(
    corpus: LabelledCorpus,
    shortlist: Path,
    asker: Asker,
    config: AdaptConfig,
    *,
    groups: Mapping[str, int] | None = None,
    reporter: Reporter,
) -> Gathered:
    """Questions about the training documents.

    Documents without a right label among their candidates teach nothing and are left out; of those
    held out they stay, as in a test.

    Raises:
        InputError: no training split, a shortlist of other documents, no document to learn from, or
            what `make_examples` refuses.
    """
    check_split(corpus, SPLIT)
    with reporter.step("documents"):
        documents = list(islice(corpus.documents(SPLIT), config.n_documents))
        if len(documents) < 2:
            raise InputError(f"{corpus.name}: {len(documents)} training documents are too few")
        table = given_shortlist(shortlist, corpus, SPLIT, len(documents))
    n_held = max(1, min(config.held_out, len(documents) // MOST_HELD_OUT))
    held = held_out_ids([one.id for one in documents], n_held, groups, config.seed)
    learned: list[tuple[Document, tuple[int, ...]]] = []
    measured: list[tuple[Document, tuple[int, ...]]] = []
    for document, labels in zip(documents, table["labels"], strict=True):
        add = config.add_gold and document.id not in held
        found = kept(document, labels)
        some = candidates_of(found, document.labels, config.candidates, add_gold=add)
        if document.id in held:
            measured.append((document, some))
        elif set(document.labels).intersection(some):
            learned.append((document, some))
    measured = [one for one in measured if one[1]]
    if not learned or not measured:
        raise InputError(
            f"{shortlist}: no training document has a right label among its first "
            f"{config.candidates}, or none of those held out has a candidate"
        )
    total = len(learned) + len(measured)
    with reporter.step("questions", total, "documents") as advance:
        examples = make_examples(
            [*learned, *measured], asker, corpus.label_texts, lambda done: advance(done, total)
        )
    learned_from = [one for one in examples[: len(learned)] if any(one.right)]
    asked = examples[len(learned) :]
    shown = [len(labels) for _, labels in (*learned, *measured)]
    narrowed = sum(len(one.labels) < n for one, n in zip(examples, shown, strict=True))
    if not learned_from:
        raise InputError(
            f"within {asker.max_tokens} tokens no right label is shown; allow more (--max-tokens)"
        )
    lengths = [len(one.tokens) for one in learned_from]
    counts = {
        "documents": len(documents),
        "held_out": len(measured),
        "without_right_candidate": len(documents) - len(held) - len(learned_from),
        "learned_from": len(learned_from),
        "narrowed": narrowed,
        "tokens": {"mean": round(float(np.mean(lengths)), 1), "most": max(lengths)},
        "way": asker.way,
    }
    return Gathered(learned_from, asked, counts)
