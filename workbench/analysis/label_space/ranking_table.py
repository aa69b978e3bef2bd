"""All measures of rankings as one table, over all labels and per bucket, with intervals."""

from collections.abc import Collection, Iterator, Sequence
from math import nan

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.label_space.frequency import (
    BUCKETS,
    OTHER,
    PerLabel,
    inverse_propensities,
    label_buckets,
)
from workbench.analysis.label_space.ranking import (
    Rankings,
    Terms,
    Weights,
    interval,
    macro_f1,
    micro_f1,
    ndcg_at,
    precision_at,
    psndcg_at,
    psp_at,
    ratio,
    recall_at,
)
from workbench.analysis.statistics import resample_counts
from workbench.errors import InputError
from workbench.phases import MIN_PROMPTS

COLUMNS = ["measure", "k", "bucket", "value", "low", "high", "n"]
NUMBERS_AT_ONCE = 2**21
"""Weights made together: 16 MB in float64; arrays that do not fit a cache take longer."""


def evaluate_rankings(
    gold: Sequence[Collection[int]],
    listed: Sequence[Sequence[int]],
    *,
    ks: Sequence[int] = (1, 3, 5),
    train_counts: Sequence[int] | Int[np.ndarray, " label"] | None = None,
    n_train: int | None = None,
    propensity: tuple[float, float] = OTHER,
    ignored: Sequence[Collection[int]] | None = None,
    head: int = 100,
    tail: int = 5,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All measures of lists of label numbers, over all labels and per bucket of frequency.

    In a bucket, right are the document's right labels of that bucket, and listed labels keep their
    places among all: so P@k of the buckets add up to that of all labels, and recall@k is the share
    of the bucket's right labels that the whole list finds. F1 is of the bucket's labels by
    themselves, and of whole lists: cut them before, to have it of the first places.

    Args:
        gold: right labels of each document.
        listed: labels of each document, best first.
        ks: how many places count.
        train_counts: training documents of each label; without them there are no buckets.
        n_train: training documents; without them there are no PSP and PSnDCG.
        propensity: A and B of the propensities: `OTHER`, or `WIKIPEDIA` or `AMAZON`.
        ignored: labels that each document is not to be asked for; see `Rankings.of`.
        head: see `label_buckets`.
        tail: see `label_buckets`.
        n_resamples: of documents.
        seed: of the resamples.

    Returns:
        columns measure (p, recall, ndcg, psp, psndcg, micro_f1, macro_f1), k (missing for F1),
        bucket ("all", "head", "torso", "tail"), value, low, high (95 %, percentile bootstrap over
        documents, of at least `MIN_PROMPTS` of them), n (documents with anything to count).
        macro_f1 has no interval: a label of few documents is missing from many resamples, so that
        even the value may lie outside.

    Raises:
        InputError: no documents, no or bad `ks`, `n_train` without `train_counts`, or what
            `Rankings.of`, `label_buckets` and `inverse_propensities` refuse.
    """
    if not len(gold):
        raise InputError("no documents to evaluate")
    if not ks or min(ks) < 1:
        raise InputError(f"ks are {list(ks)}, must be one or more numbers from 1")
    if n_resamples < 1:
        raise InputError(f"n_resamples is {n_resamples}, must be at least 1")
    if n_train is not None and train_counts is None:
        raise InputError("n_train is given without train_counts; propensities need both")
    inverse = None
    n_labels = None if train_counts is None else len(train_counts)
    parts = {"all": Rankings.of(gold, listed, ignored=ignored, n_labels=n_labels)}
    if train_counts is not None:
        bucket = label_buckets(train_counts, head=head, tail=tail)
        parts |= {name: parts["all"].within(bucket == name) for name in BUCKETS}
        if n_train is not None:
            inverse = inverse_propensities(train_counts, n_train, propensity)
    terms = {
        (measure, k, name): found
        for name, part in parts.items()
        for measure, k, found in _measures(part, ks, inverse)
    }
    above, below = (np.stack(arrays, axis=1) for arrays in zip(*terms.values(), strict=True))
    draws: Float[np.ndarray, "draw measure"] = np.concatenate(
        [ratio(w @ above, w @ below) for w in _weights(len(gold), n_resamples, seed)]
    )
    n = np.count_nonzero(below, axis=0).tolist()
    rows = []
    for at, key in enumerate(terms):
        drawn = draws[:, at] if n[at] >= MIN_PROMPTS else draws[:1, at]
        rows.append((*key, *interval(drawn), n[at]))
    once = np.full((1, len(gold)), 1 / len(gold))
    for name, part in parts.items():
        counted = np.count_nonzero(micro_f1(part).denominator)
        rows.append(("macro_f1", None, name, float(macro_f1(part, once)[0]), nan, nan, counted))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"k": "Int64"})


def _measures(
    ranked: Rankings, ks: Sequence[int], inverse: PerLabel | None
) -> Iterator[tuple[str, int | None, Terms]]:
    for k in ks:
        yield "p", k, precision_at(ranked, k)
        yield "recall", k, recall_at(ranked, k)
        yield "ndcg", k, ndcg_at(ranked, k)
    if inverse is not None:
        best = ranked.best(inverse)
        for k in ks:
            yield "psp", k, psp_at(ranked, best, k, inverse)
            yield "psndcg", k, psndcg_at(ranked, best, k, inverse)
    yield "micro_f1", None, micro_f1(ranked)


def _weights(n: int, n_resamples: int, seed: int) -> Iterator[Weights]:
    """All documents once, then the resamples; a few at a time."""
    yield np.full((1, n), 1 / n)
    generator = derive_generator(seed, "rankings")
    step = max(1, NUMBERS_AT_ONCE // n)
    for start in range(0, n_resamples, step):
        yield resample_counts(n, min(step, n_resamples - start), generator).numpy() / n
