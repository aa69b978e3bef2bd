"""All measures of rankings as one table, over all labels and in parts, with intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import nan

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.label_space.auc import macro_auc, micro_auc
from workbench.analysis.label_space.frequency import (
    BUCKETS,
    OTHER,
    SEEN,
    UNSEEN,
    PerLabel,
    inverse_propensities,
    label_buckets,
)
from workbench.analysis.label_space.label_sets import WHOLE, Cut, macro_f1, micro_f1
from workbench.analysis.label_space.ranked import Labels, Rankings, Scores
from workbench.analysis.label_space.ranking import (
    Terms,
    Weights,
    average_precision,
    interval,
    ndcg_at,
    precision_at,
    psndcg_at,
    psp_at,
    r_precision,
    ratio,
    recall_at,
)
from workbench.analysis.statistics import resample_counts
from workbench.errors import InputError
from workbench.phases import MIN_PROMPTS
from workbench.progress import pulse

COLUMNS = ["measure", "k", "bucket", "value", "low", "high", "n", "rule"]
PAIRED = ["against", "difference", "difference_low", "difference_high", "against_rule"]
"""Columns more where two rankings of the same documents are compared."""
PLACES = (1, 3, 5, 8, 15)
RECALL_PLACES = (5, 20, 100, 1000)
BY_NUMBER = {"1 right": 1, "2-3 right": 2, "4-7 right": 4, "8-15 right": 8, "16+ right": 16}
"""Documents by how many labels are right for them: buckets, and where they begin."""
NUMBERS_AT_ONCE = 2**21
"""Weights made together: 16 MB in float64; arrays that do not fit a cache take longer."""
_Key = tuple[str, int | None, str]


@dataclass(frozen=True)
class Frequencies:
    """How often labels occur in training, as far as that is known.

    Attributes:
        counts: training documents of each label; None: no buckets by frequency.
        n_train: training documents; None: no propensities.
        propensity: A and B of the propensities: `OTHER`, or `WIKIPEDIA` or `AMAZON`.
        head, tail: see `label_buckets`.
    """

    counts: Sequence[int] | Int[np.ndarray, " label"] | None = field(default=None, repr=False)
    n_train: int | None = None
    propensity: tuple[float, float] = OTHER
    head: int = 100
    tail: int = 5

    @property
    def inverse(self) -> PerLabel | None:
        """1 / propensity of every label."""
        if self.counts is None or self.n_train is None:
            return None
        return inverse_propensities(self.counts, self.n_train, self.propensity)

    def parts(self, ranked: Rankings) -> Iterator[tuple[str, Rankings]]:
        """All, labels by frequency, and documents by their number of right labels, with names."""
        yield "all", ranked
        if self.counts is not None:
            bucket = label_buckets(self.counts, head=self.head, tail=self.tail)
            for name in BUCKETS:
                yield name, ranked.within(bucket == name)
            seen = np.asarray(self.counts) > 0
            yield SEEN, ranked.within(seen)
            yield UNSEEN, ranked.within(~seen)
        number = np.digitize(ranked.n_gold, [*BY_NUMBER.values()])
        for at, name in enumerate(BY_NUMBER, start=1):
            if (number == at).any():
                yield name, ranked.of_documents(number == at)


@dataclass(frozen=True)
class _Found:
    """The measures of one ranking: those with terms, and those that are one number."""

    terms: dict[_Key, Terms]
    plain: dict[_Key, tuple[float, int]]
    """With the documents that count."""


def evaluate_rankings(
    gold: Sequence[Labels],
    listed: Sequence[Labels],
    *,
    scores: Sequence[Scores] | None = None,
    ks: Sequence[int] = (1, 3, 5),
    recall_ks: Sequence[int] | None = None,
    n_labels: int | None = None,
    train_counts: Sequence[int] | Int[np.ndarray, " label"] | None = None,
    n_train: int | None = None,
    propensity: tuple[float, float] = OTHER,
    ignored: Sequence[Labels] | None = None,
    cut: Cut = WHOLE,
    head: int = 100,
    tail: int = 5,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All measures of lists of label numbers, over all labels and in buckets.

    Args:
        gold: right labels of each document.
        listed: labels of each document, best first.
        scores: of the listed labels, the higher the better; by default 1 / place. AUC and the
            cut's score compare them between documents.
        ks: how many places count.
        recall_ks: how many count in recall; the same by default.
        n_labels: labels that there are; by default as many as `train_counts`. Without either
            there is no AUC.
        train_counts: training documents of each label; without them there are no buckets by it.
        n_train: training documents; without them there are no PSP and PSnDCG.
        propensity: A and B of the propensities: `OTHER`, or `WIKIPEDIA` or `AMAZON`.
        ignored: labels that each document is not to be asked for; see `Rankings.of`.
        cut: the part of the lists that F1 is of.
        head: see `label_buckets`.
        tail: see `label_buckets`.
        n_resamples: of documents.
        seed: of the resamples.

    Returns:
        see `ranking_table`.

    Raises:
        InputError: no documents, no or bad `ks`, `n_train` without `train_counts`, or what
            `Rankings.of`, `label_buckets` and `inverse_propensities` refuse.
    """
    if not len(gold):
        raise InputError("no documents to evaluate")
    if n_train is not None and train_counts is None:
        raise InputError("n_train is given without train_counts; propensities need both")
    if n_labels is None and train_counts is not None:
        n_labels = len(train_counts)
    return ranking_table(
        Rankings.of(gold, listed, scores=scores, ignored=ignored, n_labels=n_labels),
        cut=cut,
        ks=ks,
        recall_ks=recall_ks,
        frequencies=Frequencies(train_counts, n_train, propensity, head, tail),
        n_resamples=n_resamples,
        seed=seed,
    )


def ranking_table(
    ranked: Rankings,
    *,
    cut: Cut = WHOLE,
    against: tuple[Rankings, Cut] | None = None,
    ks: Sequence[int] = PLACES,
    recall_ks: Sequence[int] | None = RECALL_PLACES,
    frequencies: Frequencies | None = None,
    groups: Int[np.ndarray, " document"] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All measures of a ranking, or of two of the same documents, over all labels and in buckets.

    In a bucket of labels, right are the document's right labels of that bucket, and listed labels
    keep their places among all: so P@k of the buckets add up to that of all labels, and recall@k is
    the share of the bucket's right labels that the whole list finds. F1 and AUC are of the bucket's
    labels by themselves. In a bucket of documents, all is of these.

    Args:
        ranked: right and listed labels.
        cut: the part of the lists that F1 is of.
        against: another ranking of the same documents, and its cut.
        ks: how many places count.
        recall_ks: how many count in recall; the same by default.
        frequencies: of the labels in training.
        groups: number of what each document belongs to, as packages of one source do. Documents
            of a group are alike, so that groups are resampled, whole (a cluster bootstrap; Davison
            & Hinkley 1997, 3.8); by default each document is a group.
        n_resamples: of groups.
        seed: of the resamples.

    Returns:
        columns measure (p, recall, ndcg, psp, psndcg, map, r_precision, micro_f1, macro_f1,
        micro_auc, macro_auc), k (missing where whole lists count, as in recall of all that is
        listed), bucket ("all", "head", "torso", "tail", "seen", "unseen", and `BY_NUMBER` of
        documents), value, low, high (95 %, percentile bootstrap over groups, of at least
        `MIN_PROMPTS` of them), n (documents with anything to count), rule (how lists were cut for
        F1). With `against`, also its value and rule, and the difference (the first less the
        other) with an interval, from the same resamples.
        macro_f1 and macro_auc have no interval: a label of few documents is missing from many
        resamples, so that even the value may lie outside.

    Raises:
        InputError: no or bad `ks`, or what `label_buckets` and `inverse_propensities` refuse.
    """
    recall_ks = ks if recall_ks is None else recall_ks
    if not ks or not recall_ks or min(*ks, *recall_ks) < 1:
        raise InputError(f"ks are {list(ks)}, must be one or more numbers from 1")
    if n_resamples < 1:
        raise InputError(f"n_resamples is {n_resamples}, must be at least 1")
    frequencies = frequencies or Frequencies()
    both = [(ranked, cut), *([against] if against else [])]
    found = [_found(*one, ks, recall_ks, frequencies) for one in both]
    if groups is None:
        groups = np.arange(ranked.n)
    if len(groups) != ranked.n:
        raise InputError(f"{len(groups)} groups are given for {ranked.n} documents")
    drawn = _drawn([one.terms for one in found], groups, n_resamples, seed)
    rows = []
    for at, (key, terms) in enumerate(found[0].terms.items()):
        n = int(np.count_nonzero(terms.denominator))
        enough = len(np.unique(groups[terms.denominator != 0])) >= MIN_PROMPTS
        some = [one[:, at] if enough else one[:1, at] for one in drawn]
        rows.append([*key, *interval(some[0]), n])
        if against:
            rows[-1] += [float(some[1][0]), *interval(some[0] - some[1])]
    for key, (value, n) in found[0].plain.items():
        rows.append([*key, value, nan, nan, n])
        if against:
            other, _ = found[1].plain[key]
            rows[-1] += [other, value - other, nan, nan]
    table = pd.DataFrame(rows, columns=[*COLUMNS[:-1], *(PAIRED[:-1] if against else ())])
    is_f1 = table["measure"].str.endswith("_f1")
    for (_, one), name in zip(both, (COLUMNS[-1], PAIRED[-1]), strict=False):
        table[name] = np.where(is_f1, one.rule, "")
    order = [*COLUMNS, *(PAIRED if against else ())]
    return table.reindex(columns=order).astype({"k": "Int64"})


def _found(
    ranked: Rankings,
    cut: Cut,
    ks: Sequence[int],
    recall_ks: Sequence[int],
    frequencies: Frequencies,
) -> _Found:
    inverse = frequencies.inverse
    once = np.full((1, ranked.n), 1 / ranked.n)
    terms: dict[_Key, Terms] = {}
    plain: dict[_Key, tuple[float, int]] = {}
    for name, part in frequencies.parts(ranked):
        given = cut.of(part)
        micro = micro_f1(given)
        for measure, k, found in _measures(part, ks, recall_ks, inverse):
            terms[measure, k, name] = found
        terms["micro_f1", None, name] = micro
        counted = int(np.count_nonzero(micro.denominator))
        plain["macro_f1", None, name] = float(macro_f1(given, once)[0]), counted
        if part.n_labels is not None:
            area = micro_auc(part)
            terms["micro_auc", None, name] = area
            counted = int(np.count_nonzero(area.denominator))
            plain["macro_auc", None, name] = macro_auc(part), counted
        pulse("buckets")
    return _Found(terms, plain)


def _measures(
    ranked: Rankings, ks: Sequence[int], recall_ks: Sequence[int], inverse: PerLabel | None
) -> Iterator[tuple[str, int | None, Terms]]:
    for k in ks:
        yield "p", k, precision_at(ranked, k)
    for k in recall_ks:
        yield "recall", k, recall_at(ranked, k)
    yield "recall", None, recall_at(ranked, max(1, ranked.longest))
    for k in ks:
        yield "ndcg", k, ndcg_at(ranked, k)
    if inverse is not None:
        best = ranked.best(inverse)
        for k in ks:
            yield "psp", k, psp_at(ranked, best, k, inverse)
            yield "psndcg", k, psndcg_at(ranked, best, k, inverse)
    yield "map", None, average_precision(ranked)
    yield "r_precision", None, r_precision(ranked)


def _drawn(
    found: Sequence[dict[_Key, Terms]],
    groups: Int[np.ndarray, " document"],
    n_resamples: int,
    seed: int,
) -> list[Float[np.ndarray, "draw measure"]]:
    """Values of all measures on all documents, then on each resample, for each ranking."""
    stacked = [
        [np.stack(arrays, axis=1) for arrays in zip(*terms.values(), strict=True)]
        for terms in found
    ]
    drawn: list[list[np.ndarray]] = [[] for _ in found]
    for weights in _weights(groups, n_resamples, seed):
        for (above, below), draws in zip(stacked, drawn, strict=True):
            # A linearised one may leave the range of what it stands for.
            draws.append(ratio(weights @ above, weights @ below).clip(0, 1))
        pulse("resamples", len(weights))
    return [np.concatenate(draws) for draws in drawn]


def _weights(
    groups: Int[np.ndarray, " document"], n_resamples: int, seed: int
) -> Iterator[Weights]:
    """All documents once, then the resamples of their groups; a few at a time."""
    n = len(groups)
    yield np.full((1, n), 1 / n)
    number = np.unique(groups, return_inverse=True)[1]
    n_groups = int(number.max()) + 1
    generator = derive_generator(seed, "rankings")
    step = max(1, NUMBERS_AT_ONCE // n)
    for start in range(0, n_resamples, step):
        counts = resample_counts(n_groups, min(step, n_resamples - start), generator).numpy()
        yield counts[:, number] / n
