"""Predictions measured against the right labels of the documents that they are of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.analysis.label_space.frequency import OTHER, training_counts
from workbench.analysis.label_space.label_sets import WHOLE, Cut, best_score, usual_number
from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking_table import (
    PLACES,
    RECALL_PLACES,
    Frequencies,
    ranking_table,
)
from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus, check_split
from workbench.labels.folders import open_corpus
from workbench.labels.predictions import Predictions, read_predictions
from workbench.labels.retrieving.groups import read_groups
from workbench.progress import pulse

TEST, TRAIN = "test", "train"


def score_predictions(
    source: str | Path,
    *,
    task: str | LabelledCorpus | None = None,
    split: str | None = None,
    against: str | Path | None = None,
    threshold_from: str | Path | None = None,
    against_threshold_from: str | Path | None = None,
    propensity: tuple[float, float] = OTHER,
    groups: str | Path | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All measures of predictions, and with `against` how they differ from others of the same.

    Places are counted as far as the longest list goes. With `against` both are cut to where the
    one with the shorter lists ends, so that a reranked shortlist is compared with as many labels.

    Args:
        source: folder or file of predictions; see `read_predictions`.
        task: `xmc:FOLDER`, `mimic4:FOLDER` or its corpus; what the predictions say by default.
            Without any, their own gold counts, and nothing is known of training.
        split: whose documents they are; what the predictions say by default, else test.
        against: predictions of the same documents, in any order.
        threshold_from: predictions of other documents, with gold or of the same task; the score
            with the best micro F1 on these is the threshold for F1. Without it F1 is of as many
            first places as training documents have labels in the mean; of whole lists where there
            is no training split.
        against_threshold_from: the same for `against`.
        propensity: A and B of the propensities: `frequency.OTHER`, or `WIKIPEDIA` or `AMAZON`.
        groups: file of what documents belong to (`read_groups`); intervals are over groups, as
            documents of one are alike. A document without any is a group of its own.
        n_resamples: of documents, or of groups.
        seed: of the resamples.

    Returns:
        as `ranking_table`.

    Raises:
        InputError: predictions that are not as their form has it, not of this task and split, not
            of the same documents; a threshold from the documents that are measured.
    """
    scored = open_scored(source, task=task, split=split)
    return scored.measured(
        against,
        threshold_from=threshold_from,
        against_threshold_from=against_threshold_from,
        propensity=propensity,
        groups=groups,
        n_resamples=n_resamples,
        seed=seed,
    )


@dataclass(frozen=True)
class Scored:
    """Predictions with what is right for their documents.

    Attributes:
        predictions: as they were read.
        corpus: of their documents; None where that is not known.
        split: whose documents they are; None without a corpus.
        documents: id of each.
        gold: its right labels.
        ignored: labels that it is not to be asked for.
    """

    predictions: Predictions
    corpus: LabelledCorpus | None
    split: str | None
    documents: list[str] = field(repr=False)
    gold: Sequence[np.ndarray] = field(repr=False)
    ignored: Sequence[Sequence[int]] | None = field(repr=False)

    @property
    def n_labels(self) -> int | None:
        """Labels that there are; None where that is not known."""
        if self.corpus is not None:
            return len(self.corpus.label_texts)
        return self.predictions.record.get("n_labels")

    @cached_property
    def rankings(self) -> Rankings:
        """Right and listed labels.

        Raises:
            InputError: a label that there is not.
        """
        table = self.predictions.table
        try:
            return Rankings.of(
                self.gold,
                table["labels"].tolist(),
                scores=table["scores"].tolist(),
                ignored=self.ignored,
                n_labels=self.n_labels,
            )
        except InputError as error:
            raise InputError(f"{self.predictions.path}: {error}") from None

    @cached_property
    def training(self) -> tuple[np.ndarray, int] | None:
        """Training documents of each label, and all; None where there are none."""
        if self.corpus is None:
            return None
        counts, n_train = training_counts(self.corpus)
        return (counts, n_train) if n_train else None

    def measured(
        self,
        against: str | Path | None = None,
        *,
        threshold_from: str | Path | None = None,
        against_threshold_from: str | Path | None = None,
        propensity: tuple[float, float] = OTHER,
        groups: str | Path | None = None,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """The table of `score_predictions`."""
        cut = self.cut(threshold_from)
        longest = self.predictions.longest
        ranked, compared = self.rankings, None
        if against is not None:
            if (threshold_from is None) != (against_threshold_from is None):
                raise InputError(
                    "a threshold is chosen for both predictions or for neither; give "
                    "threshold_from and against_threshold_from"
                )
            other = open_scored(against, task=self.corpus, split=self.split).in_order_of(self)
            longest = min(longest, other.predictions.longest)
            other_cut = other.cut(against_threshold_from) if against_threshold_from else cut
            ranked = ranked.first(longest)
            compared = other.rankings.first(longest), other_cut
        elif against_threshold_from is not None:
            raise InputError("against_threshold_from is given without against")
        counts, n_train = self.training or (None, 0)
        ks = [k for k in PLACES if k <= longest] or [1]
        return ranking_table(
            ranked,
            cut=cut,
            against=compared,
            ks=ks,
            recall_ks=[k for k in RECALL_PLACES if k <= longest] or ks,
            frequencies=Frequencies(counts, n_train if n_train > 2 else None, propensity),
            groups=self._groups(groups),
            n_resamples=n_resamples,
            seed=seed,
        )

    def _groups(self, path: str | Path | None) -> np.ndarray | None:
        """The number of each document's group; those without any have one of their own."""
        if path is None:
            return None
        known = read_groups(Path(path))
        found = [known.get(document, -1) for document in self.documents]
        if max(found, default=-1) < 0:
            raise InputError(f"{path}: names none of the {len(found):,} documents")
        first = max(known.values()) + 1
        return np.array([first + at if one < 0 else one for at, one in enumerate(found)])

    def table(self) -> pd.DataFrame:
        """The predictions with their documents and what is right, as `write_predictions` takes."""
        found = self.predictions.table
        return pd.DataFrame(
            {
                "document": self.documents,
                **{name: found[name].tolist() for name in ("labels", "scores")},
                "gold": list(self.gold),
            }
        )

    def cut(self, threshold_from: str | Path | None) -> Cut:
        """How lists are cut for F1.

        Raises:
            InputError: thresholds from these documents, or of scores of another kind.
        """
        if threshold_from is None:
            return usual_number(*self.training) if self.training else WHOLE
        others = open_scored(threshold_from, task=self.corpus, other_than=self.split)
        same = len(set(self.documents) & set(others.documents))
        where = others.predictions.path
        if same and self.split == others.split:
            raise InputError(
                f"{where}: holds {same} of the documents that are measured; a threshold is chosen "
                "on others"
            )
        kinds = {one.predictions.record.get("scores") for one in (self, others)} - {None}
        if len(kinds) > 1:
            raise InputError(
                f"{where}: its scores are of another kind than those that are measured, as the "
                "files beside both say"
            )
        whose = f" of {others.split}" if others.split else ""
        return best_score(others.rankings, f"{len(others.documents)} documents{whose}")

    def in_order_of(self, other: "Scored") -> "Scored":
        """The same predictions with the documents in another's order.

        Raises:
            InputError: they are not of the same documents, or other labels are right.
        """
        at = pd.Index(self.documents).get_indexer(pd.Index(other.documents))
        if (at < 0).any() or len(at) != len(self.documents):
            both = int((at >= 0).sum())
            raise InputError(
                f"{self.predictions.path}: {len(self.documents):,} documents, of which {both:,} "
                f"are among the {len(at):,} of {other.predictions.path}; the same are needed"
            )
        gold = [self.gold[place] for place in at]
        if _differing(gold, other.gold):
            raise InputError(
                f"{self.predictions.path}: the right labels are not those of "
                f"{other.predictions.path}"
            )
        found = self.predictions
        table = found.table.iloc[at].reset_index(drop=True)
        return Scored(
            Predictions(found.path, table, found.record),
            self.corpus,
            self.split,
            other.documents,
            gold,
            other.ignored,
        )


def open_scored(
    source: str | Path,
    *,
    task: str | LabelledCorpus | None = None,
    split: str | None = None,
    other_than: str | None = None,
) -> Scored:
    """Predictions, and what is right for their documents by the task's split or the file itself.

    Args:
        source: folder or file of predictions.
        task: name of the task or its corpus; what the predictions say by default.
        split: whose documents they are; what the predictions say by default, else test.
        other_than: a split that it is not by default.

    Raises:
        InputError: as `read_predictions` and `open_corpus`; or the documents are not of the split,
            or other labels are right for them than the file says.
    """
    found = read_predictions(source)
    corpus = _corpus(found, task)
    if corpus is None:
        return _by_itself(found)
    split = split or found.record.get("split")
    if split is None:
        splits = [one for one in (TEST, TRAIN) if one != other_than]
        split = next((one for one in splits if one in corpus.splits), TEST)
    check_split(corpus, split)
    documents: list[str] = []
    gold: list[np.ndarray] = []
    ignored: list[Sequence[int]] = []
    for document in corpus.documents(split):
        documents.append(document.id)
        gold.append(np.array(document.labels, dtype=np.int32))
        ignored.append(document.ignored)
        pulse("documents")
    said = found.record.get("n_labels")
    if said is not None and said != len(corpus.label_texts):
        raise InputError(
            f"{found.path}: of {said:,} labels, but {corpus.name} has {len(corpus.label_texts):,}"
        )
    if "document" not in found.table:
        if len(found) != len(documents):
            raise InputError(
                f"{found.path}: {len(found):,} rows, but split {split} of {corpus.name} has "
                f"{len(documents):,} documents"
            )
        return Scored(found, corpus, split, documents, gold, ignored)
    at = pd.Index(documents).get_indexer(pd.Index(found.table["document"]))
    if (at < 0).any():
        raise InputError(
            f"{found.path}: {int((at < 0).sum()):,} of {len(at):,} documents are not in split "
            f"{split} of {corpus.name}; give the task and the split that they are of"
        )
    documents, gold, ignored = (
        [rows[place] for place in at] for rows in (documents, gold, ignored)
    )
    if "gold" in found.table and (n := _differing(found.table["gold"].tolist(), gold)):
        raise InputError(
            f"{found.path}: for {n:,} documents other labels are right than in split {split} of "
            f"{corpus.name}"
        )
    return Scored(found, corpus, split, documents, gold, ignored)


def _corpus(found: Predictions, task: str | LabelledCorpus | None) -> LabelledCorpus | None:
    if task is not None:
        return open_corpus(task) if isinstance(task, str) else task
    said = found.record.get("task")
    try:
        return said and open_corpus(said)
    except InputError as error:
        what = f"{error}; {found.path} says so, give the task (--task) if it lies elsewhere"
        raise InputError(what) from None


def _by_itself(found: Predictions) -> Scored:
    missing = [name for name in ("document", "gold") if name not in found.table]
    if missing:
        raise InputError(f"{found.path}: does not say what is right; give the task (--task)")
    documents, gold = (found.table[name].tolist() for name in ("document", "gold"))
    return Scored(found, None, found.record.get("split"), documents, gold, None)


def _differing(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> int:
    """How many rows hold other labels."""
    return sum(set(a.tolist()) != set(b.tolist()) for a, b in zip(some, others, strict=True))
