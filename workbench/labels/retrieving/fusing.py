"""Several rankings made one, and which of them to take.

Reciprocal-rank fusion (Cormack, Clarke & Büttcher 2009): a label's score is Σ 1 / (c + rank) over
the rankings that list it, ranks from 1. Which rankings are taken is found on training documents by
forward selection with repetition (Caruana et al. 2004): the ranking that raises recall most is
added, one that is there already counts again, until none raises it by `LEAST_GAIN`.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from workbench.labels.retrieving.pooling import Tops, ranked, without

Lists = Int[np.ndarray, "document _"]
"""Labels of every document, best first, as `Tops`; of any length."""
CONSTANT = 10.0
"""c: 60 in the paper, for rankings of like quality; smaller ones trust the first places more."""
LEAST_GAIN = 0.002
MOST_TAKEN = 8


def fused(rankings: Sequence[Lists], k: int, *, constant: float = CONSTANT) -> Tops:
    """The `k` labels of highest fused score; a ranking that is given twice counts twice."""
    parts = [_flat(tops, constant) for tops in rankings]
    document, label, score = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    width = int(label.max(initial=0)) + 1
    key, place = np.unique(document * width + label, return_inverse=True)
    total: Float[np.ndarray, " entry"] = np.bincount(place, score, len(key)).astype(float)
    return ranked(*np.divmod(key, width), total, len(rankings[0]), k)


def _flat(tops: Lists, constant: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    document, place = np.nonzero(tops >= 0)
    return document, tops[document, place].astype(np.int64), 1 / (constant + 1 + place)


def mean_recall(tops: Tops, gold: Sequence[Collection[int]], k: int) -> float:
    """Mean share of the right labels among the first `k`, of documents that have any."""
    rows = zip(tops[:, :k].tolist(), gold, strict=True)
    shares = [len(set(right).intersection(top)) / len(right) for top, right in rows if right]
    return float(np.mean(shares)) if shares else float("nan")


def selected(
    rankings: Mapping[str, Lists],
    gold: Sequence[Collection[int]],
    ignored: Sequence[Sequence[int]],
    k: int,
    *,
    constant: float = CONSTANT,
) -> list[tuple[str, float]]:
    """Names of the rankings to fuse, in the order taken, with recall@k after each.

    Args:
        rankings: of training documents, by name.
        gold: right labels of these documents.
        ignored: labels to leave out of their lists.
        k: places that count.
        constant: of the fusion.
    """
    lists = {name: without(tops, ignored) for name, tops in rankings.items()}
    taken: list[tuple[str, float]] = []
    best = 0.0
    while len(taken) < MOST_TAKEN:
        there = [lists[name] for name, _ in taken]
        tried = {
            name: mean_recall(fused([*there, tops], k, constant=constant), gold, k)
            for name, tops in lists.items()
        }
        name = max(tried, key=tried.__getitem__)
        if taken and not tried[name] >= best + LEAST_GAIN:
            break
        best = tried[name]
        taken.append((name, best))
    return taken
